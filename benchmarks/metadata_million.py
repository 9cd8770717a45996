"""Select from a pool of metadata: 1,000,000 rows that bring their own phash and clip_score, no pictures.

    python benchmarks/metadata_million.py [--folder DIR]

Prints the time of a first run (ingest, keep, top, exact dedup, dedup within 4, Parquet shards), of the same with a
changed threshold, the peak memory (PSS over the process tree), and the growth from 250,000 rows.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

SPEC = """
name: million
store: {store}
source: {{table: {table}}}
steps:
  - keep: clip_score > 0.2
    id: score
  - top: {{by: clip_score, fraction: 0.7}}
  - dedup: {{by: phash}}
  - dedup: {{by: phash, within: 4}}
shards: {{format: parquet}}
"""


def write_pool(path: Path, rows: int, seed: int = 0) -> None:
    """Random codes; a tenth of the rows repeats another's code, half of those two bits away."""
    rng = np.random.default_rng(seed)
    phash = rng.integers(0, 2**63, rows, dtype=np.uint64)
    repeated = rows // 10
    phash[:repeated] = phash[repeated : 2 * repeated]
    phash[: repeated // 2] ^= np.uint64(3)
    table = {
        "url": [f"https://example.org/{i}.jpg" for i in range(rows)],
        "caption": [f"a caption of the picture number {i}" for i in range(rows)],
        "phash": phash,
        "clip_score": rng.random(rows, dtype=np.float32),
    }
    pq.write_table(pa.table(table), path)


def timed(command: list[str]) -> tuple[float, float, dict]:
    """Wall-clock seconds, peak PSS in GB of the process tree, and the JSON object printed last."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = [0.0]

    def watch() -> None:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                pss = sum(p.memory_full_info().pss for p in [tree, *tree.children(recursive=True)])
                peak[0] = max(peak[0], pss / 1e9)
            except psutil.Error:
                pass
            time.sleep(0.5)  # reading PSS costs the watched process time

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - started, peak[0], json.loads(out.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="pairmill-million-"))
    folder.mkdir(parents=True, exist_ok=True)
    pairmill = str(Path(sys.executable).with_name("pairmill"))
    print(f"{'rows':>10} {'run':<20} {'seconds':>8} {'peak PSS':>9} {'curated':>9}")
    first = {}
    for rows in (250_000, 1_000_000):
        table, spec = folder / f"pool{rows}.parquet", folder / f"spec{rows}.yaml"
        write_pool(table, rows)
        spec.write_text(SPEC.format(store=folder / f"store{rows}", table=table))
        shutil.rmtree(folder / f"store{rows}", ignore_errors=True)
        for name, more in (("first", []), ("changed threshold", ["--set", "score=clip_score > 0.25"])):
            seconds, peak_gb, record = timed([pairmill, "run", str(spec), "--json", *more])
            print(
                f"{rows:>10,} {name:<20} {seconds:>8.1f} {peak_gb:>6.2f} GB {record['rows']['curated']:>9,}", flush=True
            )
            if name == "first":
                first[rows] = seconds
    print("\ngoals: first < 40 s, changed < 8 s, peak < 2 GB, growth at most 4.6 times")
    print(f"growth from 250,000 to 1,000,000 rows: {first[1_000_000] / first[250_000]:.2f} times (with start-up)")


if __name__ == "__main__":
    main()
