"""Ask SQL of 100 million rows of metadata: a histogram, the funnel, a filter over three columns.

    python benchmarks/analytics.py [--rows N] [--folder DIR]

The metadata are synthetic, in files as a version has them: a million rows each, sorted by key, in row groups of 40,000,
with the pinned writer. Ten million rows are written (about 1 GB), and their files linked as often as it takes; DuckDB
reads every link as a file of its own. Questions go through `connect`, as those of `pairmill sql`, on two threads.
Prints seconds (the first time and the best of five), CPU seconds, and the bytes that a question reads, beside those of
the columns that it names: what it reads beyond these is refused, but for the files' footers.
"""

import argparse
import json
import os
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.analytics.limits import Limits
from curation.analytics.query import connect
from curation.samples import SAMPLES_GROUP_ROWS
from curation.storage import layout
from curation.storage.store import Store, file_sha256
from curation.storage.tables import parquet_writer
from schemas.manifest import Manifest

VERSION = "0" * 16
ROWS_PER_FILE = 1_000_000
DISTINCT_FILES = 10
LABELS = ["", "steps[0] keep", "steps[1] download", "steps[3] keep", "steps[5] dedup", "steps[7] top"]
SHARES = [0.12, 0.15, 0.18, 0.15, 0.1, 0.3]
# Where a range bounds what is counted, DuckDB counts in an array; else in a table of hashes, which takes half as long
# again.
QUESTIONS = {  # goal in seconds, the columns that are named, the text
    "histogram of one score": (
        1.0,
        ["clip_score"],
        "SELECT CAST(clip_score * 100 AS INTEGER) AS bin, count(*) AS rows FROM samples "
        "WHERE clip_score BETWEEN -1 AND 1 GROUP BY ALL ORDER BY ALL",
    ),
    "the funnel": (
        1.0,
        ["fate_step"],
        "SELECT fate_step, count(*) AS rows FROM samples GROUP BY ALL ORDER BY ALL",
    ),
    "a filter over three columns": (
        2.0,
        ["clip_score", "width_px", "language"],
        "SELECT count(*) AS rows FROM samples WHERE clip_score > 0.3 AND width_px >= 512 AND language = 'de'",
    ),
}


def write_samples(path: Path, number: int, rows: int) -> None:
    """One file of the wide table; URLs and captions of usual length, signals NULL where a row had ended before."""
    rng = np.random.default_rng(number)
    step_N = rng.choice(len(LABELS), rows, p=SHARES)
    ended_N = (step_N == 1) | (step_N == 2)
    codes_N = rng.integers(0, 2**63, (2, rows), np.uint64)
    keys = np.sort(np.char.add(f"{number:02x}", np.char.mod("%030x", codes_N[0].astype(object))))
    table = {
        "key": pa.array(keys),
        "url": pa.array([f"https://host{n % 9973}.example/pictures/{n:x}.jpg" for n in codes_N[1].tolist()]),
        "caption": pa.array([f"a caption of picture {n % 99991} with some words more" for n in codes_N[0].tolist()]),
        "language": pa.array(rng.choice(["en", "de", "fr", "zh", "es"], rows, p=[0.5, 0.2, 0.1, 0.1, 0.1]).tolist()),
        "width_px": pa.array(rng.integers(64, 2048, rows, np.int32), mask=ended_N),
        "height_px": pa.array(rng.integers(64, 2048, rows, np.int32), mask=ended_N),
        "phash": pa.array(codes_N[1], mask=ended_N),
        "clip_score": pa.array(rng.normal(0.25, 0.06, rows).astype(np.float32), mask=ended_N),
        "aesthetic_score": pa.array(rng.normal(5, 1, rows).astype(np.float32), mask=ended_N),
        "fate": pa.array(["curated", "dropped", "failed", "dropped", "dropped", "dropped"]).take(pa.array(step_N)),
        "fate_step": pa.array(LABELS).take(pa.array(step_N)),
        "fate_reason": pa.array([label and f"why {label}" for label in LABELS]).take(pa.array(step_N)),
        "duplicate_of": pa.nulls(rows, pa.string()),
    }
    made = pa.table(table)
    with parquet_writer(path, made.schema) as writer:
        writer.write_table(made, row_group_size=SAMPLES_GROUP_ROWS)


def write_store(folder: Path, rows: int) -> Store:
    """A store with one finished version of so many rows."""
    store = Store.open(folder / "store")
    home = store.path(layout.curated("big", VERSION))
    home.mkdir(parents=True, exist_ok=True)
    entries, left = [], rows
    for number in range(-(-rows // ROWS_PER_FILE)):
        path, first = home / f"samples-{number:06d}.parquet", home / f"samples-{number % DISTINCT_FILES:06d}.parquet"
        count = min(ROWS_PER_FILE, left)
        if path == first:
            write_samples(path, number, count)
        elif count == ROWS_PER_FILE:
            os.link(first, path)
        else:
            break
        sha256 = file_sha256(path) if path == first else entries[number % DISTINCT_FILES]["parquet_sha256"]
        said = {"parquet": f"{VERSION}/{path.name}", "rows": count, "parquet_sha256": sha256}
        entries.append(said | {"parquet_bytes": path.stat().st_size})
        left -= count
    pool = rows - left
    counts = {"rows_in": pool, "rows_out": pool}
    manifest = {"name": "big", "version": VERSION, "rows": 0, "pool": pool, "columns": [], "shards": []}
    manifest |= {
        "samples": entries,
        "funnel": [{"step": "source", "kind": "source"} | counts],
        "spec": {},
        "operators": {},
    }
    text = Manifest.model_validate(manifest).model_dump_json()
    store.path(layout.curated("big", f"{VERSION}.json")).write_text(text)
    store.put(layout.run(0), {"name": "big", "plan": "plan"})
    store.put(layout.finished(0), {"name": "big", "version": VERSION, "plan": "plan", "at": 0.0})
    return store


def column_bytes(files: list[Path]) -> dict[str, int]:
    """Length in bytes of every column's chunks, over all files."""
    found: dict[str, int] = {}
    for file in files:
        about = pq.read_metadata(file)
        for group in range(about.num_row_groups):
            for place in range(about.num_columns):
                chunk = about.row_group(group).column(place)
                found[chunk.path_in_schema] = found.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    return found


def read_bytes() -> int:
    """How much this process has read from files, caches of the system included."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def scanned_columns(connection: duckdb.DuckDBPyConnection, text: str) -> set[str]:
    """The columns that DuckDB's plan takes from the files, for its output or for filters pushed down to them."""
    ((_, plan),) = connection.execute(f"EXPLAIN (FORMAT json) {text}").fetchall()
    known = [name for (name,) in connection.execute("SELECT column_name FROM (DESCRIBE samples)").fetchall()]
    open_, found = list(json.loads(plan)), set()
    while open_:
        node = open_.pop()
        open_ += node["children"]
        if "PARQUET" in node["name"]:
            words = set(re.findall(r"\w+", str([node["extra_info"].get(said) for said in ("Projections", "Filters")])))
            found |= words & set(known)
    return found


def timed(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[float, float, int]:
    """Seconds, CPU seconds, and bytes read."""
    read, began, before = read_bytes(), time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    connection.execute(text).fetchall()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu_s, read_bytes() - read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="where the store is kept for the next time; default: nowhere")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="pairmill-analytics-"))
    kept = folder / "store" / "curated" / "big" / f"{VERSION}.json"
    store = Store(folder / "store") if kept.exists() else write_store(folder, given.rows)
    files = sorted(kept.parent.glob(f"{VERSION}/*.parquet"))
    sizes = column_bytes(files)
    began = time.monotonic()
    with connect(store.root, "big", limits=Limits(memory_gb=3)) as connection:
        opened_s = time.monotonic() - began
        rows = connection.execute("SELECT count(*) FROM samples").fetchone()
        threads = connection.execute("SELECT current_setting('threads')").fetchone()
        print(f"{rows and rows[0]:,} rows in {len(files)} files, {sum(sizes.values()) / 1e9:.1f} GB; ", end="")
        print(f"opened in {opened_s:.2f} s; {threads and threads[0]} threads; load {os.getloadavg()[0]:.1f}")
        print(
            f"{'question':<28} {'goal s':>6} {'first s':>8} {'best s':>7} {'CPU s':>6} {'read MB':>8} {'named MB':>9}"
        )
        for name, (goal_s, columns, text) in QUESTIONS.items():
            assert scanned_columns(connection, text) == set(columns), scanned_columns(connection, text)
            first_s, _, read = timed(connection, text)
            best_s, cpu_s, _ = min(timed(connection, text) for _ in range(5))
            named = sum(sizes[column] for column in columns)
            print(
                f"{name:<28} {goal_s:>6.1f} {first_s:>8.2f} {best_s:>7.2f} {cpu_s:>6.2f} {read / 1e6:>8.0f} "
                f"{named / 1e6:>9.0f}",
                flush=True,
            )
            footers = sum(file.stat().st_size for file in files) - sum(sizes.values())
            assert read <= 1.05 * named + 2 * footers, "columns were read that the question does not name"
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
