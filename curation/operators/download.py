"""Fetches pictures and keeps them in the store; the network goes on while pictures are decoded."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curation.fetch.addresses import parse_networks
from curation.fetch.completed import Completed, completed
from curation.fetch.once_per_url import Wanted, fetch_once_per_url
from curation.fetch.outcomes import PASSING
from curation.fetch.picture_form import PictureForm
from curation.fetch.policy import USER_AGENT, FetchPolicy, HostPolicy
from curation.fetch.readiness import make_ready
from curation.fetch.to_stored import to_stored
from curation.operator import Batch, Operator, Output, Resources, setting
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
    passing: ClassVar[frozenset[str]] = PASSING

    expect_sha256: str | None = Field(None, description="column with the SHA-256 that the fetched bytes must have")
    max_bytes: int = Field(20 * 2**20, description="longer answers fail as too_large", gt=0)
    timeout_s: float = setting(20.0, "seconds that one attempt may take, redirects included", gt=0)
    retries: int = setting(2, "further attempts after a failure that may pass", ge=0)
    concurrency: int = setting(64, "requests that run at once in one worker", ge=1)
    per_host: int = setting(8, "requests that one host gets at once from one worker", ge=1)
    user_agent: str = setting(USER_AGENT, "what servers are told; name a contact", pattern=r"^[\x20-\x7e]+$")
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

    def open(self) -> HostPolicy:
        """The state per host that all fetches of a worker share. Raises RunError."""
        make_ready(self._form)
        return HostPolicy(self.per_host)

    def run(self, batch: Batch, opened: HostPolicy) -> Output:
        """The outcome of each row of one batch."""
        done = sorted(self._completed(iter([(np.arange(len(batch)), batch)]), opened), key=lambda one: one.row)
        return self._output(done)

    def stream(self, batches: Batches, opened: HostPolicy) -> Iterator[tuple[np.ndarray, Output]]:
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
            user_agent=self.user_agent,
            allow_networks=self.allow_networks,
        )

    @property
    def _form(self) -> PictureForm:
        return PictureForm(**{name: getattr(self, name) for name in PictureForm.model_fields})

    def _completed(self, batches: Batches, hosts: HostPolicy) -> Generator[Completed, None, None]:
        to_picture = partial(to_stored, form=self._form)
        with closing(fetch_once_per_url(self._wanted(batches), self._policy, hosts)) as results:
            for wanted, fetched in results:
                yield from completed(wanted, fetched, to_picture)

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
