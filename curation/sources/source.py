"""What ingest sees of a source: its files, its own columns, and rows that bring their pictures."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.operator import Failure


@dataclass(frozen=True)
class SourceFile:
    """A file of a source as it is now; what has no single file (a piece of a folder) has a digest all the same."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CapturedRow:
    """A row that brings its picture, as found; `failure` says why it has none. Nothing is decoded here.

    `origin` names the row in words, `file:member`, without the path to the source. `key` is only there where the row
    has one already (a curated set).
    """

    url: str | None
    caption: str | None
    picture: bytes | None
    origin: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    key: str | None = None


class CapturedSource(ABC):
    """A source that brings pictures. Picklable: `read` runs wherever a task does.

    A limit leaves out the files that the first rows do not need; the files that it keeps are read to their end.
    """

    @property
    @abstractmethod
    def files(self) -> Sequence[SourceFile]:
        """What is read, in order. Digests are taken when this is first asked for: every byte is read."""

    @property
    @abstractmethod
    def extra(self) -> Mapping[str, pa.DataType]:
        """The source's own columns, sorted by name; every row's `extra` fits them."""

    @abstractmethod
    def read(self, index: int) -> Iterator[CapturedRow]:
        """The rows of one file, always in the same order, one picture in memory at a time."""


def files_for(limit: int | None, counts: Iterable[int]) -> int:
    """How many files hold the first `limit` rows; `counts`, the rows of each, are taken only as far as needed."""
    files = rows = 0
    counted = iter(counts)
    while (limit is None or rows < limit) and (count := next(counted, None)) is not None:
        files, rows = files + 1, rows + count
    return files
