"""Fetches pictures and keeps them in the store; the network goes on while pictures are decoded."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from curation.fetch.block_lists import load_block_lists
from curation.fetch.completed import Completed, mismatches
from curation.fetch.fetcher import Fetcher, Fetches, img2dataset_fetcher
from curation.fetch.hosts.host_policy import HostLimits
from curation.fetch.http.addresses import WEB_PORTS, parse_networks
from curation.fetch.img2dataset_engine import require_possible
from curation.fetch.once_per_url import Wanted
from curation.fetch.outcomes import PASSING
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.policy import USER_AGENT, FetchPolicy
from curation.operator import Batch, Failure, Operator, Output, Resources, Workplace, setting
from schemas.columns import (
    HTTP_STATUS,
    IMAGE,
    KEY,
    ORIGINAL_HEIGHT_PX,
    ORIGINAL_WIDTH_PX,
    SHA256,
    STORED_SHA256,
    URL,
    Column,
)

_GROUP_ROWS = 64  # completed rows that go on together

Batches = Iterator[tuple[np.ndarray, Batch]]


class Download(Operator, PictureForm):
    """Fetches each picture over HTTP and stores it, shrunk if asked for, without metadata."""

    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=2)
    captured: ClassVar[bool] = True
    asks_hosts: ClassVar[bool] = True
    passing: ClassVar[frozenset[str]] = PASSING

    engine: Literal["pairmill", "img2dataset"] = Field(
        "pairmill",
        description="img2dataset runs the real one in an environment of its own: without robots.txt, "
        "limits per host, max_bytes, or a look at the addresses that names lead to",
    )
    expect_sha256: str | None = setting(None, "column with the SHA-256 that the fetched bytes must have")
    store_original: bool = Field(False, description="keep the fetched bytes too, metadata included, in the pool's tars")
    max_bytes: int = Field(20 * 2**20, description="longer answers fail as too_large", gt=0)
    timeout_s: float = setting(20.0, "seconds that one attempt may take, redirects included", gt=0)
    retries: int = setting(2, "further attempts after a failure that may pass", ge=0)
    concurrency: int = setting(64, "requests that run at once in one worker", ge=1)
    per_host: int = setting(8, "requests that one registered domain gets at once", ge=1)
    requests_per_s: float | None = setting(None, "requests that one registered domain gets in a second", gt=0)
    part_deadline_s: float | None = setting(3600.0, "seconds for a part; what is late can be retried", gt=0)
    robots: bool = setting(True, "heed robots.txt")
    opt_out: bool = setting(True, "heed X-Robots-Tag (noai, noindex …) and TDM reservations (header, tdmrep.json)")
    block_domains: str | None = setting(None, "file of domains that are never asked, one a line")
    block_hashes: str | None = setting(None, "file of SHA-256 or pdq: hashes of pictures that are never stored")
    isolate: bool = setting(
        True, "decode in a child process, so that no picture can crash, hang or take over the worker; costs 0.2 ms each"
    )
    user_agent: str = setting(USER_AGENT, "what servers are told; name a contact", pattern=r"^[\x20-\x7e]+$")
    ports: tuple[int, ...] = setting(WEB_PORTS, "ports of the public web that may be connected to")
    allow_networks: tuple[str, ...] = setting((), "private networks that may be connected to, on any port")

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(networks)
        return networks

    @property
    def reads(self) -> tuple[Column, ...]:
        """The URL, and the column with the expected digest if one is named."""
        meaning = "SHA-256 that the fetched bytes must have, hex"
        return (URL, *(Column(name, pa.string(), meaning) for name in self.judges_by))

    @property
    def judges_by(self) -> tuple[str, ...]:
        """The column with the expected digest."""
        return (self.expect_sha256,) if self.expect_sha256 else ()

    def refusals(self, recorded: pa.Table, beside: pa.Table) -> Mapping[int, Failure]:
        """Rows whose bytes are not those that the source saw."""
        return mismatches(recorded[SHA256.name].to_pylist(), beside[self.judges_by[0]].to_pylist())

    @property
    def adds(self) -> tuple[Column, ...]:
        """The picture, the digests of what was fetched and of what is stored, and the original's size."""
        return (HTTP_STATUS, SHA256, STORED_SHA256, ORIGINAL_WIDTH_PX, ORIGINAL_HEIGHT_PX, IMAGE)

    def check(self) -> None:
        """The block lists can be read."""
        load_block_lists(self.block_domains, self.block_hashes)

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.engine == "img2dataset":
            require_possible(self.model_dump(include=self.model_fields_set))
        return self

    def open(self) -> Fetches:
        """How hosts are treated, and the decoder."""
        return self.open_at(Workplace())

    def open_at(self, workplace: Workplace) -> Fetches:
        """The same, with what a worker's place offers. Raises RunError."""
        form = PictureForm(**{name: getattr(self, name) for name in PictureForm.model_fields})
        if self.engine == "img2dataset":
            return img2dataset_fetcher(form, isolate=self.isolate)
        return Fetcher.at(workplace, HostLimits(self.per_host, self.requests_per_s), form, isolate=self.isolate)

    def run(self, batch: Batch, opened: Fetches) -> Output:
        """The outcome of each row of one batch."""
        rows = iter([(np.arange(len(batch)), batch)])
        done = sorted(opened.completed(self._wanted(rows), self._policy), key=lambda one: one.row)
        return self._output(done)

    def stream(self, batches: Batches, opened: Fetches) -> Iterator[tuple[np.ndarray, Output]]:
        """Outcomes in the order in which fetches end; rows that stand together with one URL cost one fetch."""
        with closing(opened.completed(self._wanted(batches), self._policy)) as completed:
            for group in iter(lambda: list(itertools.islice(completed, _GROUP_ROWS)), []):
                yield np.array([done.row for done in group], np.int64), self._output(group)

    @property
    def _policy(self) -> FetchPolicy:
        return FetchPolicy.of(self, load_block_lists(self.block_domains, self.block_hashes))

    def _wanted(self, batches: Batches) -> Iterator[Wanted]:
        for rows, batch in batches:
            yield from map(Wanted, rows.tolist(), batch[KEY.name].to_pylist(), batch[URL.name].to_pylist())

    def _output(self, group: Sequence[Completed]) -> Output:
        names = [column.name for column in self.adds if column is not IMAGE]
        return Output(
            {name: [done.values.get(name) for done in group] for name in names},
            failures={i: done.failure for i, done in enumerate(group) if done.failure},
            stored=[done.stored for done in group],
            originals=[done.original for done in group] if self.store_original else (),
            ledger=[done.ledger for done in group if done.ledger],
        )
