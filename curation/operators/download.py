"""Fetches pictures and keeps them in the store; the network goes on while pictures are decoded."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curation.fetch.addresses import WEB_PORTS, parse_networks
from curation.fetch.block_lists import load_block_lists
from curation.fetch.completed import Arrived, Completed, completed
from curation.fetch.decoding import Decoder, InlineDecoder
from curation.fetch.host_policy import HostLimits, HostPolicy
from curation.fetch.isolated import IsolatedDecoder
from curation.fetch.leased_hosts import LeasedHosts
from curation.fetch.once_per_url import Wanted, fetch_once_per_url
from curation.fetch.outcomes import PASSING
from curation.fetch.picture_form import PictureForm
from curation.fetch.policy import USER_AGENT, FetchPolicy
from curation.fetch.readiness import make_ready, require_decoder
from curation.fetch.site_book import SiteBook
from curation.fetch.to_stored import to_stored
from curation.operator import Batch, Operator, Output, Resources, Workplace, setting
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
_PATIENCE_S = 0.02  # without a fetch that ends, until we look at what has been decoded meanwhile

Batches = Iterator[tuple[np.ndarray, Batch]]


@dataclass(frozen=True)
class _Opened:
    """What all fetches of a worker share: the state per host, and what decodes."""

    hosts: HostPolicy
    decoder: Decoder


class Download(Operator, PictureForm):
    """Fetches each picture over HTTP and stores it, shrunk if asked for, without metadata."""

    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=2)
    captured: ClassVar[bool] = True
    asks_hosts: ClassVar[bool] = True
    passing: ClassVar[frozenset[str]] = PASSING

    expect_sha256: str | None = Field(None, description="column with the SHA-256 that the fetched bytes must have")
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
        expected = self.expect_sha256
        digest = (Column(expected, pa.string(), "SHA-256 that the fetched bytes must have, hex"),) if expected else ()
        return (URL, *digest)

    @property
    def adds(self) -> tuple[Column, ...]:
        """The picture, the digests of what was fetched and of what is stored, and the original's size."""
        return (HTTP_STATUS, SHA256, STORED_SHA256, ORIGINAL_WIDTH_PX, ORIGINAL_HEIGHT_PX, IMAGE)

    def check(self) -> None:
        """The block lists can be read."""
        load_block_lists(self.block_domains, self.block_hashes)

    def open(self) -> _Opened:
        """How hosts are treated, and the decoder; its process is started with the first picture."""
        return self.open_at(Workplace())

    def open_at(self, workplace: Workplace) -> _Opened:
        """The same, with what sites said before, and with its share of the limits where there are other workers."""
        limits = HostLimits(self.per_host, self.requests_per_s)
        if workplace.hosts is not None:
            hosts: HostPolicy = LeasedHosts(limits, exchange=partial(workplace.hosts, workplace.store, limits))
        else:
            hosts = HostPolicy(limits, sites=SiteBook(workplace.store))
        return _Opened(hosts, self._decoder())

    def _decoder(self) -> Decoder:
        to_picture, prepare = partial(to_stored, form=self._form), partial(make_ready, self._form)
        if self.isolate:
            require_decoder(self._form)
            return IsolatedDecoder(to_picture, prepare=prepare)
        prepare()
        return InlineDecoder(to_picture)

    def run(self, batch: Batch, opened: _Opened) -> Output:
        """The outcome of each row of one batch."""
        done = sorted(self._completed(iter([(np.arange(len(batch)), batch)]), opened), key=lambda one: one.row)
        return self._output(done)

    def stream(self, batches: Batches, opened: _Opened) -> Iterator[tuple[np.ndarray, Output]]:
        """Outcomes in the order in which fetches end; rows that stand together with one URL cost one fetch."""
        with closing(self._completed(batches, opened)) as completed:
            for group in iter(lambda: list(itertools.islice(completed, _GROUP_ROWS)), []):
                yield np.array([done.row for done in group], np.int64), self._output(group)

    @property
    def _policy(self) -> FetchPolicy:
        return FetchPolicy(
            max_bytes=self.max_bytes,
            timeout_s=self.timeout_s,
            retries=self.retries,
            concurrency=self.concurrency,
            deadline_s=self.part_deadline_s,
            user_agent=self.user_agent,
            robots=self.robots,
            opt_out=self.opt_out,
            ports=self.ports,
            allow_networks=self.allow_networks,
            block_lists=load_block_lists(self.block_domains, self.block_hashes),
        )

    @property
    def _form(self) -> PictureForm:
        return PictureForm(**{name: getattr(self, name) for name in PictureForm.model_fields})

    def _completed(self, batches: Batches, opened: _Opened) -> Generator[Completed, None, None]:
        policy = self._policy
        with closing(fetch_once_per_url(self._wanted(batches), policy, opened.hosts, _PATIENCE_S)) as results:
            arrivals = (None if result is None else Arrived(*result, policy.block_lists) for result in results)
            to_decode = (None if one is None else (one, one.to_decode) for one in arrivals)
            with closing(opened.decoder.stream(to_decode)) as decoded:
                for arrived, picture in decoded:
                    yield from completed(arrived, picture)

    def _wanted(self, batches: Batches) -> Iterator[Wanted]:
        for rows, batch in batches:
            expected = batch[self.expect_sha256].to_pylist() if self.expect_sha256 else [None] * len(rows)
            for row, key, url, sha256 in zip(
                rows.tolist(), batch[KEY.name].to_pylist(), batch[URL.name].to_pylist(), expected, strict=True
            ):
                yield Wanted(row, key, url, (sha256 or "").strip().lower())

    def _output(self, group: Sequence[Completed]) -> Output:
        names = [column.name for column in self.adds if column is not IMAGE]
        return Output(
            values={name: [done.values.get(name) for done in group] for name in names},
            failures={i: done.failure for i, done in enumerate(group) if done.failure},
            stored=[done.stored for done in group],
            ledger=[done.ledger for done in group if done.ledger],
        )
