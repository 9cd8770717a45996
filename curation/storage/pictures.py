"""The pictures of the pool: tars that are written once, and where each picture lies in them."""

import contextlib
from collections.abc import Collection

import pyarrow as pa

from curation.storage.sidecars import LOCATIONS, Sidecar, read_locations
from curation.storage.store import FileRef, NewFile, Store
from curation.storage.tables import put_table
from schemas.pixels import stored_format
from schemas.shard import PoolTarWriter


class _Discarded(Exception):
    """Tells a file on its way into the store that it is not wanted."""


class PictureWriter:
    """Writes the pictures of one generation of a sidecar into one tar, each address once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stack = contextlib.ExitStack()
        self._file: NewFile | None = None
        self._tar: PoolTarWriter | None = None
        self._by_address: dict[str, tuple[int, int]] = {}
        self._new: dict[int, tuple[int, int]] = {}
        self._adopted: dict[int, tuple[str, int, int]] = {}

    def add(self, row: int, address: str, stored: bytes, original: bytes | None = None) -> None:
        """Keep a picture for a row; its original lies behind it as `<address>.original`, for any reader of tars."""
        if address not in self._by_address:
            if self._tar is None:
                self._file = self._stack.enter_context(self._store.new_file(".tar"))
                stream = self._stack.enter_context(open(self._file.path, "wb"))  # noqa: SIM115  # the stack closes it
                self._tar = self._stack.enter_context(PoolTarWriter(stream))
            offset = self._tar.add(f"{address}.{stored_format(stored)}", stored)
            self._by_address[address] = (offset, len(stored))
            if original is not None:
                self._tar.add(f"{address}.original", original)
        self._new[row] = self._by_address[address]

    def adopt(self, row: int, place: tuple[str, int, int]) -> None:
        """Let a row use a picture that lies in another tar of the store."""
        self._adopted[row] = place

    def discard(self) -> None:
        """Leave nothing behind of what was not finished."""
        with contextlib.suppress(_Discarded):
            self._stack.__exit__(_Discarded, _Discarded(), None)

    def finish(self, old: Sidecar | None, rows: Collection[int] | None = None) -> tuple[FileRef, tuple[FileRef, ...]]:
        """Put the tar and the table of locations (only of `rows` if given), those of the generation before included."""
        self._stack.close()
        tars = {ref.name: ref for ref in (old.tars if old else ())}
        places = dict(self._adopted)
        if self._file is not None:
            tars[self._file.ref.name] = self._file.ref
            places |= {row: (self._file.ref.name, *place) for row, place in self._new.items()}
        if rows is not None:
            places = {row: places[row] for row in map(int, rows) if row in places}
        for name in sorted({tar for tar, _, _ in places.values()} - tars.keys()):
            tars[name] = FileRef(
                name, self._store.path(name).stat().st_size, name.rsplit("/", 1)[1].removesuffix(".tar")
            )
        if old is not None:
            before = read_locations(self._store, old).to_pylist()
            places = {p["row"]: (p["tar"], p["offset"], p["length"]) for p in before} | places
        lines = [{"row": r, "tar": t, "offset": o, "length": n} for r, (t, o, n) in sorted(places.items())]
        return put_table(self._store, pa.Table.from_pylist(lines, schema=LOCATIONS)), tuple(tars.values())
