"""The rows of a store that tombstones hit, and what else is known of the same pictures.

A picture is known by several hashes (as it was fetched, as it is stored, by one specification and another), and stands
at several addresses. So hits are looked for until there are no more: a row that is hit gives its key, its URL and its
pictures, and these may hit others.

Like `prune`, this lists folders: no record tells which operators have been at a part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.forget.at_source import forgotten_rejected
from curation.forget.tombstones import HASH_CHARS, TABLE, Tombstones, hash_of
from curation.ingest import OURS
from curation.storage.pool import Part, read_pool
from curation.storage.store import FileRef, Store
from curation.storage.tables import read_table
from schemas.columns import KEY, SHA256, STORED_SHA256, URL

_OF_PICTURES = (SHA256.name, STORED_SHA256.name)
_CAPTURED = f"""
    WITH named AS (SELECT *, coalesce(nullif({OURS}url, ''), {OURS}picture_sha256, 'origin:' || {OURS}origin) AS named,
                          chr(10) || coalesce({OURS}caption, '') AS caption FROM read_parquet($file))
    SELECT coalesce({OURS}own_key, substr(sha256(coalesce(named, '') || caption), 1, 32)) AS key,
           substr(sha256(named), 1, 32) AS address, {OURS}url AS url,
           {OURS}picture_sha256 AS sha256, {OURS}stored_sha256 AS stored_sha256
    FROM named"""  # keys and addresses as `ingest` makes them; no address of what a purge has been at


@dataclass(frozen=True)
class Hit:
    """What tombstones hit in a store, as tombstones."""

    own: pa.Table  # TABLE: keys, URLs and pictures of what is hit
    tombstones: pa.Table  # TABLE: these, and those that were asked for; sorted, each once

    @property
    def keys(self) -> pa.Array:
        """The keys of all rows that are hit, those included that failed at the source."""
        return hashes_of(self.own, "key")


def hits(store: Store, asked: pa.Table) -> Hit:
    """Every row that these tombstones hit, with all that is known of the same pictures."""
    parts = read_pool(store).parts
    known = _sorted(asked)
    while True:
        tombstones = Tombstones([known])
        found = [_hit_in(store, part, tombstones) for part in parts]
        found += [_of_rejected(tombstones, rejected) for rejected in _all_rejected(store)]
        found += [_hashes_in(tombstones, rows, _digests(rows)) for rows in _all_captured(store)]
        own = pa.concat_tables([TABLE.empty_table(), *found])
        grown = _sorted(pa.concat_tables([known, own]))
        if grown.num_rows == known.num_rows:
            return Hit(_sorted(own), known)
        known = grown


def hashes_of(tombstones: pa.Table, kind: str) -> pa.Array:
    """The hashes of one kind."""
    return tombstones["hash"].filter(pc.equal(tombstones["kind"], kind)).combine_chunks()


def _newest_records(store: Store, part: str) -> Iterator[dict[str, Any]]:
    """The newest generation of every sidecar of a part, as its record."""
    for folder in sorted(store.path(f"commits/{part}").glob("*")):
        newest = max(folder.glob("*.json"), default=None)
        if newest is not None:
            yield store.get(_name(store, newest))


def _name(store: Store, path: Path) -> str:
    return str(path.relative_to(store.root))


def _hit_in(store: Store, part: Part, tombstones: Tombstones) -> pa.Table:
    """The tombstones of the rows of a part that are hit."""
    table = read_table(store, part.file, [KEY.name, "address", URL.name])
    return _hashes_in(tombstones, table, list(_pictures_of(store, part.name)))


def _hashes_in(tombstones: Tombstones, table: pa.Table, pictures: Sequence[pa.ChunkedArray]) -> pa.Table:
    """The tombstones of the rows (key, address, url; digests of their pictures) that are hit."""
    hit_N = tombstones.rows(table)
    for column in pictures:
        hit_N = hit_N | tombstones.matches("picture", column)
    at = pa.array(np.flatnonzero(hit_N))
    own = [_table("key", table[KEY.name].take(at)), _table("url", table["address"].take(at))]
    return pa.concat_tables([*own, *(_table("picture", column.take(at)) for column in pictures)])


def captured_rows(store: Store, ref: FileRef) -> pa.Table:
    """The rows that were taken from a file of a source which brings its pictures: key, address, url and digests."""
    with duckdb.connect(":memory:") as connection:
        return connection.sql(_CAPTURED, params={"file": str(store.path(ref.name))}).to_arrow_table()


def _all_captured(store: Store) -> Iterator[pa.Table]:
    for path in sorted(store.path("captures").glob("*.json")):
        yield captured_rows(store, FileRef(**store.get(_name(store, path))["rows"]))


def _pictures_of(store: Store, part: str) -> Iterator[pa.ChunkedArray]:
    """The digests of pictures in a part, a column for every way in which they came."""
    for record in _newest_records(store, part):
        if record["locations"]:
            values = FileRef(**record["values"])
            there = pq.read_schema(store.path(values.name)).names
            yield from _digests(read_table(store, values, [name for name in _OF_PICTURES if name in there]))


def _digests(table: pa.Table) -> list[pa.ChunkedArray]:
    """The columns of digests, but not of bytes that no picture was made of: many hosts send the same error page."""
    if set(_OF_PICTURES) <= set(table.column_names):
        fetched, stored = (table[name] for name in _OF_PICTURES)
        return [pc.if_else(stored.is_valid(), fetched, None), stored]
    return [table[name] for name in _OF_PICTURES if name in table.column_names]


def _all_rejected(store: Store) -> Iterator[pa.Table]:
    for path in sorted(store.path("snapshots").glob("*.json")):
        rejected = FileRef(**store.get(_name(store, path))["rejected"])
        yield read_table(store, rejected, [KEY.name, URL.name])


def _of_rejected(tombstones: Tombstones, rejected: pa.Table) -> pa.Table:
    gone = rejected.filter(pa.array(forgotten_rejected(tombstones, rejected)))
    urls = [hash_of(url) for url in gone[URL.name].to_pylist() if url is not None]
    return pa.concat_tables(
        [_table("key", gone[KEY.name]), _table("url", pa.chunked_array([pa.array(urls, pa.string())]))]
    )


def _table(kind: str, hashes: pa.ChunkedArray) -> pa.Table:
    """Tombstones of one kind, NULL left out."""
    given = pc.utf8_slice_codeunits(pc.drop_null(hashes), 0, HASH_CHARS)
    return pa.table([pa.chunked_array([pa.repeat(pa.scalar(kind), len(given))], pa.string()), given], schema=TABLE)


def _sorted(tombstones: pa.Table) -> pa.Table:
    each = tombstones.group_by(TABLE.names).aggregate([])
    return each.select(TABLE.names).sort_by([(name, "ascending") for name in TABLE.names])
