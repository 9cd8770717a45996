"""What must be forgotten, as hashes: nothing here tells a URL, a host or a caption.

A tombstone is 128 bits of a SHA-256, hex, with its kind:

key       of a row, which is such a hash itself
url       its address in the pool; another caption of the same URL stays out, and nothing is fetched for it
host      of a host's name; hosts below it match too, as in block lists
picture   of the bytes that were fetched or stored; another address of the same picture stays out

Requests stand in a chain of records `forgotten/<n>.json` 0, 1, 2 …, each with a table of the tombstones that those
before it did not have: so the same request twice is one. Who asked, when and why stands in the record only.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.storage import layout
from curation.storage.store import FileRef, Store
from curation.storage.tables import read_table

FORGET = "forget"  # as `fate_step` of what was forgotten
REASON = "forgotten on request"
KINDS = ("key", "url", "host", "picture")
HASH_CHARS = 32
TABLE = pa.schema([("kind", pa.string()), ("hash", pa.string())])


@dataclass(frozen=True)
class Request:
    """One request to forget; `id` names its tombstones by their content."""

    number: int
    id: str
    who: str
    when: float  # seconds since 1970
    why: str
    counts: Mapping[str, int]  # tombstones by kind
    file: FileRef

    def text(self) -> str:
        """The request in one line."""
        day = datetime.fromtimestamp(self.when, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"request {self.id} of {self.who}, {day}" + (f": {self.why}" if self.why else "")


class Tombstones:
    """All tombstones of a store, ready to be matched: sorted hashes by kind."""

    def __init__(self, tables: Iterable[pa.Table] = ()) -> None:
        table = pa.concat_tables([TABLE.empty_table(), *tables])
        self._hashes: dict[str, np.ndarray] = {}
        for kind in KINDS:
            hashes = _fixed(table["hash"].filter(pc.equal(table["kind"], kind)))
            if len(hashes):
                self._hashes[kind] = np.unique(hashes)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    @property
    def of_pictures(self) -> bool:
        """Whether there are any that only a picture shows."""
        return "picture" in self._hashes

    @property
    def source_columns(self) -> list[str]:
        """The columns of a part that `rows` looks at."""
        return ["key", "address", *(["url"] if "host" in self._hashes else [])]

    def matches(self, kind: str, hashes: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """Which hashes (hex, of which the first 128 bits count; NULL matches nothing) are forgotten, bool_N."""
        known_T = self._hashes.get(kind)
        if known_T is None or not len(hashes):
            return np.zeros(len(hashes), bool)
        given_N = _fixed(hashes)
        at_N = np.minimum(np.searchsorted(known_T, given_N), len(known_T) - 1)
        found_N: np.ndarray = known_T[at_N] == given_N
        return found_N

    def rows(self, table: pa.Table) -> np.ndarray:
        """Which rows of a part (key, address, url) are forgotten as they come from the source, bool_N."""
        found_N = self.matches("key", table["key"]) | self.matches("url", table["address"])
        return found_N | self.of_hosts(table["url"]) if "host" in self._hashes else found_N

    def of_hosts(self, urls: pa.ChunkedArray) -> np.ndarray:
        """Which URLs are of a forgotten host, bool_N."""
        coded = pc.dictionary_encode(pc.ascii_lower(pc.replace_substring_regex(urls, _HOST_IN_URL, r"\1")))
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        hosts = coded.dictionary.to_pylist()
        names = [(i, name) for i, host in enumerate(hosts) for name in _with_those_above(host)]
        hit = self.matches("host", pa.array([hash_of(name) for _, name in names], pa.string()))
        hosts_hit = np.zeros(len(hosts) + 1, bool)  # the last stands for NULL
        hosts_hit[[i for (i, _), one in zip(names, hit, strict=True) if one]] = True
        return hosts_hit[pc.fill_null(coded.indices, len(hosts)).to_numpy()]


_HOST_IN_URL = r"^[ \t\r\n\f]*[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^:/?#]*)(?s:.*)$"


def hash_of(text: str) -> str:
    """128 bits of a text's SHA-256, hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def _with_those_above(host: str | None) -> list[str]:
    """A host and the domains above it, as block lists spell them."""
    name = (host or "").rstrip(".")
    if not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("idna").decode()
    labels = name.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]


def _fixed(hashes: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Hex texts as fixed bytes, which numpy sorts and compares; what has another length matches nothing."""
    cut = pc.utf8_slice_codeunits(hashes, 0, HASH_CHARS)
    cut = pc.if_else(pc.fill_null(pc.equal(pc.utf8_length(cut), HASH_CHARS), False), cut, "-" * HASH_CHARS)
    whole = cut.combine_chunks() if isinstance(cut, pa.ChunkedArray) else cut
    data = whole.cast(pa.binary()).cast(pa.binary(HASH_CHARS))
    return np.frombuffer(data.buffers()[1] or b"", f"S{HASH_CHARS}", len(data), data.offset * HASH_CHARS)


def read_requests(store: Store) -> list[Request]:
    """All requests of a store, in their order; of a store without any it reads one name."""
    found: list[Request] = []
    while (record := store.get(layout.forgotten(len(found)))) is not None:
        found.append(Request(len(found), file=FileRef(**record.pop("file")), **record))
    return found


def requests_for(store: Store, key: str) -> list[Request]:
    """The requests that name a row's key: that of every row of a forgotten URL, host or picture which was there."""
    return [r for r in read_requests(store) if tombstones_of(store, [r.file]).matches("key", pa.array([key]))[0]]


def put_request(store: Store, table: pa.Table, file: FileRef, said: Mapping[str, Any]) -> Request:
    """Record a request; `table` holds its tombstones, `said` who, when and why."""
    counts = {kind: int(pc.sum(pc.equal(table["kind"], kind)).as_py() or 0) for kind in KINDS}
    record = {"id": file.sha256[:12], "counts": counts, "file": file.record(), **said}
    number = len(read_requests(store))
    while not store.put(layout.forgotten(number), record):
        number += 1
    return Request(number, file=file, **{name: value for name, value in record.items() if name != "file"})


def tombstones_of(store: Store, files: Iterable[FileRef]) -> Tombstones:
    """The tombstones in those files, read once per process."""
    return _read(tuple(str(store.path(file.name)) for file in files))


def tombstone_table(store: Store) -> pa.Table:
    """Every tombstone of a store as TABLE."""
    tables = [read_table(store, request.file) for request in read_requests(store)]
    return pa.concat_tables([TABLE.empty_table(), *tables])


def all_tombstones(store: Store) -> Tombstones:
    """Every tombstone of a store."""
    return tombstones_of(store, (request.file for request in read_requests(store)))


@lru_cache(2)
def _read(paths: tuple[str, ...]) -> Tombstones:
    return Tombstones(pq.read_table(path) for path in paths)
