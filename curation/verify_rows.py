"""Whether the rows of a version agree: every key once, every row one fate, the funnel's counts, curated = shards."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curation.forget.tombstones import FORGET
from schemas.columns import FATE, FATE_STEP, KEY
from schemas.manifest import Manifest

FATES = ("curated", "dropped", "failed")
_BATCH_ROWS = 65_536
_SHOWN_KEYS = 20
_MEMORY_LIMIT = "1GB"

Counts = dict[tuple[str | None, str], int]  # (fate, step) → rows


def check_rows(folder: Path, manifest: Manifest, errors: list[str]) -> int:
    """Check keys, fates and counts; append what is wrong to `errors` and return how many rows have a fate."""
    counts = _count_fates(folder, manifest, errors)
    _check_fates(manifest, counts, errors)
    _check_totals(manifest, counts, errors)
    _check_funnel(manifest, counts, errors)
    _check_curated_keys(folder, manifest, errors)
    return sum(counts.values())


def read_keys(folder: Path, name: str, errors: list[str]) -> list[str] | None:
    """The keys of a Parquet file in order; None, and an error, where it cannot be read."""
    try:
        return [key for (keys,) in _batches(folder / name, [KEY.name]) for key in keys]
    except (pa.ArrowException, OSError, KeyError) as error:
        errors.append(f"{name}: cannot be read as Parquet ({error})")
        return None


def _batches(path: Path, columns: list[str]) -> Iterator[list[list[Any]]]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            yield [batch.column(column).to_pylist() for column in columns]


def _count_fates(folder: Path, manifest: Manifest, errors: list[str]) -> Counts:
    """Count rows by fate and step. Keys must strictly rise from file to file: then each stands once."""
    counts: Counts = {}
    last = ""
    for sample in manifest.samples:
        rows = 0
        try:
            for keys, fates, steps in _batches(folder / sample.parquet, [KEY.name, FATE.name, FATE_STEP.name]):
                rows += len(keys)
                last = _check_order(sample.parquet, keys, last, errors)
                for fate, step in zip(fates, steps, strict=True):
                    counts[fate, step or ""] = counts.get((fate, step or ""), 0) + 1
        except (pa.ArrowException, OSError, KeyError) as error:
            errors.append(f"{sample.parquet}: cannot be read as Parquet ({error})")
        if rows != sample.rows:
            errors.append(f"{sample.parquet}: has {rows:,} rows, the manifest says {sample.rows:,}")
    return counts


def _check_order(name: str, keys: list[str | None], last: str, errors: list[str]) -> str:
    """Check that keys strictly rise from `last` on, and return the last of them."""
    for key in keys:
        if key is None or key <= last:
            errors.append(f"{name}: key {key} stands after {last or 'nothing'}; keys must rise, each once")
        last = key or last
    return last


def _check_fates(manifest: Manifest, counts: Counts, errors: list[str]) -> None:
    """Every fate is one of three, and names a step exactly where the row is not curated."""
    labels = {entry.step for entry in manifest.funnel} | {FORGET}
    for (fate, step), rows in sorted(counts.items(), key=str):
        if fate not in FATES or (step == "") != (fate == "curated") or (step and step not in labels):
            errors.append(f"samples: {rows:,} rows have the fate {fate!r} at step {step!r}, which cannot be")


def _check_totals(manifest: Manifest, counts: Counts, errors: list[str]) -> None:
    total = sum(counts.values())
    if total != manifest.pool:
        errors.append(f"samples: {total:,} rows have a fate, the manifest says the pool has {manifest.pool:,}")
    for what, rows in (
        ("samples", counts.get(("curated", ""), 0)),
        ("funnel", manifest.funnel[-1].rows_out if manifest.funnel else manifest.rows),
    ):
        if rows != manifest.rows:
            errors.append(f"{what}: {rows:,} rows are curated, the manifest says {manifest.rows:,}")


def _check_funnel(manifest: Manifest, counts: Counts, errors: list[str]) -> None:
    """What goes into and out of each step is what the fates say.

    The source also reads rows of equal keys, and what is forgotten ends there.
    """
    alive = manifest.pool
    for place, entry in enumerate(manifest.funnel):
        ended = (entry.step,) if place else (entry.step, FORGET)
        gone = sum(rows for (_, step), rows in counts.items() if step in ended)
        if (place and entry.rows_in != alive) or entry.rows_out != alive - gone:
            errors.append(
                f"funnel: {entry.step}: says {entry.rows_in:,} in and {entry.rows_out:,} out, "
                f"samples say {alive:,} in and {alive - gone:,} out"
            )
        alive -= gone


def _check_curated_keys(folder: Path, manifest: Manifest, errors: list[str]) -> None:
    """The curated keys of samples are those of the shards, each once; compared out of core."""
    files = {
        "samples": [str(folder / sample.parquet) for sample in manifest.samples],
        "shards": [str(folder / shard.parquet) for shard in manifest.shards],
    }
    of_shards = "UNION ALL SELECT key, 1 AS side FROM read_parquet($shards)" if files["shards"] else ""
    query = f"""
        SELECT key, count(*) FILTER (side = 0) AS curated, count(*) FILTER (side = 1) AS stored
        FROM (SELECT key, 0 AS side FROM read_parquet($samples) WHERE fate = 'curated' {of_shards})
        GROUP BY key HAVING curated != 1 OR stored != 1 ORDER BY key LIMIT {_SHOWN_KEYS}"""
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(":memory:") as database:
        database.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        database.execute("SET enable_progress_bar = false")
        database.execute("SET temp_directory = $folder", {"folder": spill})
        try:
            odd = database.execute(query, {name: paths for name, paths in files.items() if paths}).fetchall()
        except duckdb.Error as error:
            errors.append(f"keys: those of samples and shards cannot be compared ({error})")
            return
    for key, curated, stored in odd:
        errors.append(f"key {key}: is curated {curated} times in samples and stands {stored} times in the shards")
