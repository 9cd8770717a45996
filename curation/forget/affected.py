"""What a forgotten row stands in: data sets, versions, shards, and who trained on them; and who comes back for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.storage.store import Store
from curation.versions import Version, names, versions
from schemas.manifest import read_manifest
from schemas.pins import read_pins


@dataclass(frozen=True)
class AffectedShard:
    """A shard, and how many forgotten rows it has."""

    tar: str | None
    parquet: str
    rows: int


@dataclass(frozen=True)
class AffectedVersion:
    """A version with forgotten rows: how many of its pool and of its shards, and who uses it."""

    name: str
    version: str
    tags: tuple[str, ...]
    rows: int
    curated: int
    shards: tuple[AffectedShard, ...]
    used_by: tuple[str, ...]  # training runs, and sets that are compared against the version
    returning: tuple[str, ...]  # of the newest version: keys that a forgotten row stood for as their duplicate


def affected(store: Store, keys: pa.Array) -> Iterator[AffectedVersion]:
    """The versions that have any of these keys, set by set, newest first."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("gone", pa.table({"key": keys}))
        for name in names(store):
            for version in versions(store, name):
                found = _affected(connection, version)
                if found.rows:
                    yield found


def _affected(connection: duckdb.DuckDBPyConnection, version: Version) -> AffectedVersion:
    folder, manifest = version.path.parent, read_manifest(version.path)
    samples = [str(folder / file.parquet) for file in manifest.samples]
    counted = "SELECT count(*), count(*) FILTER (fate = 'curated')"
    query = f"{counted} FROM read_parquet($files) SEMI JOIN gone USING (key) WHERE fate_step IS DISTINCT FROM 'forget'"
    rows, curated = connection.execute(query, {"files": samples}).fetchone() or (0, 0)
    paths = {str(folder / shard.parquet): shard for shard in manifest.shards if curated}
    shards = []
    for path, count in _by_file(connection, list(paths)):
        shards.append(AffectedShard(paths[path].tar, paths[path].parquet, count))
    used_by = tuple(pin.by for pin in read_pins(folder) if pin.version == version.version)
    returning = _returning(connection, samples) if version.newest and rows else ()
    label = (version.name, version.version, version.tags)
    return AffectedVersion(*label, rows, curated, tuple(shards), used_by, returning)


def _by_file(connection: duckdb.DuckDBPyConnection, files: list[str]) -> list[tuple[str, int]]:
    if not files:
        return []
    query = "SELECT filename, count(*) FROM read_parquet($files, filename = true) SEMI JOIN gone USING (key)"
    return connection.execute(f"{query} GROUP BY filename ORDER BY filename", {"files": files}).fetchall()


def _returning(connection: duckdb.DuckDBPyConnection, samples: list[str]) -> tuple[str, ...]:
    """Rows that were dropped as duplicates of a forgotten one, and are not forgotten themselves."""
    query = """
        SELECT key FROM read_parquet($files)
        WHERE duplicate_of IN (SELECT key FROM gone) AND key NOT IN (SELECT key FROM gone) ORDER BY key"""
    return tuple(key for (key,) in connection.execute(query, {"files": samples}).fetchall())


def shard_path(version: AffectedVersion, shard: AffectedShard) -> Path:
    """A shard's file relative to the store, its tar where it has one."""
    return Path("curated", version.name, shard.tar or shard.parquet)
