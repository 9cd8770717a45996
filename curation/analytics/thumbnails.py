"""The pictures of a version's pairs, kept or dropped: found by key in the pool, checked, and shrunk to small JPEGs."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from curation.part_rows import read_pictures
from curation.plan import CAPTURE_VERSION
from curation.stage import CAPTURE
from curation.storage import layout, sidecars
from curation.storage.sidecars import Sidecar
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import read_table
from curation.versions import Chosen
from schemas.columns import CAPTION, KEY, STORED_SHA256, URL
from schemas.errors import StoreError
from schemas.manifest import Manifest
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
        self._bringer = _bringer(chosen.manifest)
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
            sidecar = self._sidecar(self._parts[file])
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

    def _sidecar(self, member: Mapping[str, Any]) -> Sidecar | None:
        """What brought a part's pictures; where it read a column of the source, its values are in the fingerprint."""
        name, fingerprint, rides_on = self._bringer
        if rides_on:
            table = read_table(self._store, FileRef(**member["file"]), list(rides_on))
            fingerprint = digest([fingerprint, {column: _values_digest(table[column]) for column in rides_on}])
        return sidecars.latest(self._store, member["part"]["name"], name, fingerprint)

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


def _bringer(manifest: Manifest) -> tuple[str, str, tuple[str, ...]]:
    """The step that brought the pictures: operator, fingerprint, and the columns of the source that it read.

    Without such a step they came with the source.
    """
    places = {entry.step: place for place, entry in enumerate(manifest.funnel)}
    for column in reversed(manifest.columns):
        if column.name.endswith(STORED_SHA256.name) and column.step in manifest.operators:
            place = places[column.step]
            reads = set(
                (manifest.spec["steps"][place - 1].get("reads") or {}).values()
            )  # the funnel has the source, too
            own = {KEY.name, URL.name, CAPTION.name}
            rides_on = {c.name for c in manifest.columns if c.step == "source" and c.name in reads} - own
            return manifest.funnel[place].kind, manifest.operators[column.step], tuple(sorted(rides_on))
    return CAPTURE, digest({"operator": CAPTURE, "version": CAPTURE_VERSION}), ()


def _values_digest(values: pa.ChunkedArray) -> str:
    """As `PartRows` spells the values that a fingerprint rides on."""
    return hashlib.sha256(json.dumps(values.to_pylist(), default=str, ensure_ascii=False).encode()).hexdigest()
