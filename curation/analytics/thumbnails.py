"""The pictures of a version's pairs, kept or dropped: found by key in the pool, checked, and shrunk to small JPEGs."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curation.analytics.step_values import pictures_of
from curation.part_rows import read_pictures
from curation.storage import layout, sidecars
from curation.storage.store import Store
from curation.versions import Chosen
from schemas.columns import STORED_SHA256
from schemas.errors import StoreError
from schemas.pixels import DecodeError, decode

_QUALITY = 80
_Place = tuple[str, int, int]  # tar, offset, length


class Pictures:
    """Reads stored pictures of one version's rows, wherever in the pool they lie.

    A picture is None where the row has none, where it was purged, and where the bytes are not those that were stored
    (`pairmill verify` says of what is damaged). May be used from several threads at once.
    """

    def __init__(self, store: Store, chosen: Chosen) -> None:
        """Open the version's snapshot; a version that came without one has no pictures."""
        self._store = store
        self._values = pictures_of(chosen.manifest)
        lineage = chosen.manifest.lineage
        snapshot = store.get(layout.snapshot(lineage.snapshot)) if lineage else None
        self._parts: dict[str, dict[str, Any]] = {  # by the path of their files of keys
            str(store.path(member["part"]["file"]["name"])): member
            for member in (snapshot["parts"] if snapshot else ())
        }
        self._samples = [str(chosen.folder / sample.parquet) for sample in chosen.manifest.samples]
        self._connection = duckdb.connect(":memory:")
        self._connection.execute("SET enable_progress_bar = false")
        self._connection.execute("SET parquet_metadata_cache = true")  # a listed file never changes

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def stored(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """The stored bytes (JPEG, PNG or WebP) by key, in the order of the keys."""
        found: dict[str, bytes | None] = dict.fromkeys(keys)
        for file, key_of in self._rows(list(found)).items():
            sidecar = self._values.sidecar(self._store, self._parts[file])
            if sidecar is None:
                continue
            digests = sidecars.read_values(self._store, sidecar, [STORED_SHA256.name])[STORED_SHA256.name]
            locations = sidecars.read_locations(self._store, sidecar)
            wanted = locations.filter(pc.is_in(locations["row"], pa.array(key_of, pa.int32())))
            for place in wanted.to_pylist():
                where = (place["tar"], place["offset"], place["length"])
                found[key_of[place["row"]]] = self._checked(where, digests[place["row"]].as_py())
        return found

    def thumbnails(self, keys: Iterable[str], longest_side_px: int) -> dict[str, bytes | None]:
        """Small JPEGs by key, in the order of the keys; None also for a picture that cannot be decoded."""
        return {key: stored and thumbnail(stored, longest_side_px) for key, stored in self.stored(keys).items()}

    def _rows(self, keys: Sequence[str]) -> Mapping[str, Mapping[int, str]]:
        """File of a part → row in it → key. Parts are sorted by address, so that few are read where rows have URLs."""
        if not keys or not self._parts:
            return {}
        asked = self._ask(
            "SELECT key, substr(sha256(url), 1, 32) FROM read_parquet($files)", self._samples, "key", keys
        )
        addresses = [address for _, address in asked]
        column, values = ("key", keys) if None in addresses else ("address", addresses)
        select = (
            "SELECT key, filename, file_row_number FROM read_parquet($files, filename = true, file_row_number = true)"
        )
        rows: dict[str, dict[int, str]] = {}
        wanted = {key for key, _ in asked}
        for key, file, row in self._ask(select, list(self._parts), column, values):
            if key in wanted:
                rows.setdefault(file, {})[row] = key
        return rows

    def _ask(self, select: str, files: list[str], column: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """Rows with one of these values, as constants: DuckDB holds those against the bounds of row groups."""
        if not values:
            return []
        listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        return self._connection.cursor().execute(f"{select} WHERE {column} IN ({listed})", {"files": files}).fetchall()

    def _checked(self, place: _Place, sha256: str | None) -> bytes | None:
        try:
            (stored,) = read_pictures(self._store, [place])
        except StoreError:
            return None
        return stored if hashlib.sha256(stored).hexdigest() == sha256 else None


def thumbnail(stored: bytes, longest_side_px: int) -> bytes | None:
    """A stored picture as JPEG whose longest side has at most that many pixels; None where it cannot be decoded."""
    from PIL import Image

    try:
        image = Image.fromarray(decode(stored, at_least_px=longest_side_px))
    except DecodeError:
        return None
    image.thumbnail((longest_side_px, longest_side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
