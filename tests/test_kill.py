"""Kill -9 at any instant, run again: the same bytes, and nothing fetched twice that was committed."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from conftest import SmallWeb, run_job, textured_jpeg, write_table

HERE = Path(__file__).parent
POINTS = 44


def small_spec(web: SmallWeb, tmp_path: Path) -> dict:
    """Two parts, a barrier, two stages, two shards; a near duplicate and a dead link among ten rows."""
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"picture {i}"} for i in range(8)]
    rows.append({"url": web.put("/again.jpg", textured_jpeg(3, 144, 120)), "caption": "again"})
    rows.append({"url": f"{web.base_url}/dead.jpg", "caption": "dead"})
    steps = [
        {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "isolate": False}},
        {"image_hash": {"kind": "phash"}},
        {"dedup": {"by": "phash", "within": 4}},
        "inspect_image",
        {"keep": "width_px > 10"},
    ]
    source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 5}
    return {"name": "set", "store": str(tmp_path / "whole"), "source": source, "steps": steps, "shards": {"rows": 5}}


def curated_digests(store: Path) -> dict[str, str]:
    """SHA-256 of every file of the curated sets, but of the catalogue, which DuckDB gives an identifier of its own."""
    files = [path for path in (store / "curated").rglob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.suffix != ".duckdb"]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def committed_urls(store: Path) -> set[str]:
    """URLs whose download is committed."""
    urls = set()
    for record in (store / "commits").glob("*/download-*/*.json"):
        for ledger in json.loads(record.read_text())["ledgers"]:
            urls |= set(pq.read_table(store / ledger["name"], columns=["url"])["url"].to_pylist())
    return urls


def durable_steps(spec: Path, store: Path) -> int:
    """How many durable steps an uninterrupted run takes."""
    return int(_children(spec, [f"{store}=0"])[0]["steps"])


def _children(spec: Path, arguments: list[str]) -> list[dict]:
    command = [sys.executable, str(HERE / "killed_runs.py"), str(spec), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_run_killed_anywhere_and_run_again_gives_the_same_bytes_and_refetches_nothing_committed(web, tmp_path):
    spec = small_spec(web, tmp_path)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    run_job(spec)
    wanted = curated_digests(tmp_path / "whole")
    assert len(wanted) > 6
    steps = durable_steps(path, tmp_path / "counted")
    points = sorted({round(1 + i * (steps - 1) / (POINTS - 1)) for i in range(POINTS)})
    assert len(points) >= 40
    stores = {point: tmp_path / f"killed{point}" for point in points}
    children = _children(path, [f"{store}={point}" for point, store in stores.items()])
    # How often tasks flush varies by a step or two, so the last points may lie behind the end.
    assert sum(child.get("killed", False) for child in children) >= 40
    committed = {point: committed_urls(store) for point, store in stores.items()}
    for point, store in stores.items():
        web.asked = Counter()
        run_job(spec | {"store": str(store)})
        assert curated_digests(store) == wanted, f"killed at step {point} of {steps}"
        again = {f"{web.base_url}{asked}" for asked in web.asked}
        assert not again & committed[point], f"killed at step {point} of {steps}"
