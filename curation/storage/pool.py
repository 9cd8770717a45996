"""The pool: the chain of ingest records, the parts they list, and the addresses that parts share."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from curation.storage import layout
from curation.storage.store import FileRef, Store


@dataclass(frozen=True)
class Part:
    """Some rows of the pool: `file` holds key, url, caption and address (128 bits of the URL's SHA-256, hex)."""

    name: str
    rows: int
    file: FileRef


@dataclass(frozen=True)
class Pool:
    """All parts of a store, oldest first, and the next free number of the chain."""

    parts: tuple[Part, ...]
    shared: tuple[FileRef, ...]  # tables (part, row, home_part, home_row): rows whose URL an earlier part has
    next_record: int


def read_pool(store: Store) -> Pool:
    """Follow the chain of ingest records to its end."""
    parts: list[Part] = []
    shared: list[FileRef] = []
    number = 0
    while (record := store.get(layout.ingest_record(number))) is not None:
        parts += [Part(p["name"], p["rows"], FileRef(**p["file"])) for p in record["parts"]]
        shared += [FileRef(**ref) for ref in record["shared"]]
        number += 1
    return Pool(tuple(parts), tuple(shared), number)


def extend_pool(store: Store, pool: Pool, parts: Iterable[Part], shared: Iterable[FileRef]) -> bool:
    """Put the next ingest record; False when another run was first."""
    record: dict[str, Any] = {"parts": [asdict(part) for part in parts], "shared": [ref.record() for ref in shared]}
    return store.put(layout.ingest_record(pool.next_record), record)
