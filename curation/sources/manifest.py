"""`source: {manifest: data/x/curated/x}`: a curated set, keys and signals kept.

In a store of its own a row is what it was: `relation` gives its key, URL, caption and columns. For another store its
pictures are captured like a tar's, under their own keys. Held-out rows are rows of the set, too. Embeddings do not ride
along: they are signals, and belong to the operator that made them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curation.operator import Failure
from curation.sources.files import labels, readable
from curation.sources.formats.format import quoted
from curation.sources.mapping import DEFAULT
from curation.sources.source import CapturedRow, CapturedSource, SourceFile, files_for
from curation.sources.table import TableSource, database, open_table
from schemas.errors import SourceError
from schemas.manifest import ShardEntry, find_manifest, read_manifest
from schemas.shard import Sample, ShardError, read_shard

_KEY = " key"  # `key` is no name for a source's column, and none of a curated set's begins with a space
_BATCH_ROWS = 1_000


@dataclass(frozen=True)
class Shard:
    """A shard of a curated set, and where it lies."""

    folder: str
    entry: ShardEntry

    @property
    def parquet(self) -> str:
        """Path of its Parquet."""
        return str(Path(self.folder, self.entry.parquet))

    @property
    def tar(self) -> str:
        """Path of its tar."""
        assert self.entry.tar is not None, "a set without pictures is a table"
        return str(Path(self.folder, self.entry.tar))


@dataclass(frozen=True)
class ManifestSource(CapturedSource):
    """A curated set with pictures."""

    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    table: TableSource  # one Parquet per shard, in the same order

    @property
    def files(self) -> Sequence[SourceFile]:
        """The shards, with the digests that the manifest gives them."""
        return tuple(_digested(shard) for shard in self.shards)

    @property
    def extra(self) -> Mapping[str, pa.DataType]:
        """The columns of the set but embeddings."""
        return {name: kind for name, kind in self.table.extra.items() if name != _KEY}

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None) -> str:
        """SQL that selects key, url, caption and the set's columns, of all shards up to the limit."""
        columns = ", ".join(["url", "caption", *map(quoted, self.extra)])
        return f"SELECT {quoted(_KEY)} AS key, {columns} FROM ({self.table.relation()})"

    def read(self, index: int) -> Iterator[CapturedRow]:
        """The rows of one shard with the stored pictures; tar and Parquet must agree on the keys."""
        shard = self.shards[index]
        records = self._records(index)
        try:
            for sample in read_shard(shard.tar):
                yield self._row(sample, next(records, {}), f"{self.labels[index]}:{sample.key}")
        except (ShardError, OSError) as error:
            raise SourceError(f"source manifest: {error}; check the set with pairmill verify") from error
        if next(records, None) is not None:
            raise SourceError(f"source manifest: {shard.tar} has fewer rows than its Parquet; check it with verify")

    def _records(self, index: int) -> Iterator[dict[str, Any]]:
        with database() as connection, readable(self.shards[index].parquet):
            for batch in connection.sql(self.table.relation(file=index)).to_arrow_reader(_BATCH_ROWS):
                yield from batch.to_pylist()

    def _row(self, sample: Sample, record: Mapping[str, Any], origin: str) -> CapturedRow:
        if record.get(_KEY) != sample.key:
            raise SourceError(
                f"source manifest: {origin}: the Parquet has {record.get(_KEY)} in its place; check it with verify"
            )
        picture = sample.picture
        failure = None if picture is not None else Failure("no_picture", f"{origin}: has no picture in the tar")
        extra = {name: record[name] for name in self.extra}
        return CapturedRow(record["url"], record["caption"], picture, origin, extra, failure, sample.key)


def open_manifest(
    paths: str | Sequence[str], columns: Mapping[str, str] | None = None, limit: int | None = None
) -> ManifestSource | TableSource:
    """Open curated sets by folder, file or `folder@version`; one without pictures is a table. Raises InputError."""
    where = "source manifest"
    asked = dict(columns or DEFAULT)
    for name, theirs in DEFAULT.items():
        if asked.get(name, theirs) != theirs:
            raise SourceError(f"{where}: a curated set keeps its keys, so {name} cannot be mapped from {asked[name]!r}")
    shards = [shard for path in ([paths] if isinstance(paths, str) else paths) for shard in _shards(path, where)]
    if not shards:
        raise SourceError(f"{where}: the set has no rows")
    shards.sort(key=lambda shard: shard.parquet)
    found = [shard.parquet for shard in shards]
    if any(shard.entry.tar is None for shard in shards):
        return open_table(found, asked, limit, where, lenient=True, leave_out=("key", *_embeddings(found[0])))
    leave_out = _embeddings(found[0])
    table = open_table(found, {**asked, _KEY: "key"}, limit, where, lenient=True, leave_out=leave_out)
    used = files_for(limit, (shard.entry.rows for shard in shards))
    return ManifestSource(tuple(shards[:used]), labels([shard.tar for shard in shards])[:used], table)


def _shards(path: str, where: str) -> list[Shard]:
    file = find_manifest(path)
    shards = [Shard(str(file.parent), entry) for entry in read_manifest(file).shards]
    for shard in shards:
        pieces = [(shard.parquet, shard.entry.parquet_bytes)]
        if shard.entry.tar is not None:
            pieces.append((shard.tar, shard.entry.tar_bytes or 0))
        for piece, length in pieces:
            there = Path(piece).stat().st_size if Path(piece).is_file() else None
            if there != length:
                state = "is not there" if there is None else f"has {there:,} bytes, the manifest says {length:,}"
                raise SourceError(f"{where}: {piece} {state}; the set is damaged, make it again with run")
    return shards


def _embeddings(parquet: str) -> tuple[str, ...]:
    """The columns of embeddings: lists of float16."""
    with readable(parquet):
        schema = pq.read_schema(parquet)
    lists = (pa.types.is_list, pa.types.is_fixed_size_list, pa.types.is_large_list)
    return tuple(
        field.name
        for field in schema
        if any(is_list(field.type) for is_list in lists) and pa.types.is_float16(field.type.value_type)
    )


def _digested(shard: Shard) -> SourceFile:
    entry = shard.entry
    both = hashlib.sha256(f"{entry.tar_sha256}{entry.parquet_sha256}".encode()).hexdigest()
    return SourceFile(shard.tar, entry.parquet_bytes + (entry.tar_bytes or 0), both)
