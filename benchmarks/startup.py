"""How long a person waits: help, check, and `run` until its first part is finished.

python benchmarks/startup.py [--repeats 5]
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SPEC = """
name: small
store: {folder}/store{number}
source: {{table: {folder}/pairs.parquet, rows_per_part: 100}}
steps:
  - caption_stats
  - keep: caption_words >= 2
shards: {{format: parquet}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    pairmill = str(Path(sys.executable).with_name("pairmill"))
    with tempfile.TemporaryDirectory(prefix="pairmill-startup-") as name:
        folder = Path(name)
        rows = {"url": [f"https://example.org/{i}" for i in range(400)], "caption": ["two words"] * 400}
        pq.write_table(pa.table(rows), folder / "pairs.parquet")
        spec = folder / "spec.yaml"
        spec.write_text(SPEC.format(folder=folder, number=0))
        for label, command, goal_s in (
            ("pairmill --help", [pairmill, "--help"], 0.4),
            ("pairmill check", [pairmill, "check", str(spec)], 1.5),
        ):
            times = [_seconds(command) for _ in range(repeats)]
            print(f"{label:<42} {statistics.median(times):6.2f} s   (goal < {goal_s} s)", flush=True)
        for number in range(1, 3):
            spec.write_text(SPEC.format(folder=folder, number=number))
            seconds = _to_first_part([pairmill, "run", str(spec)])
            print(f"{f'pairmill run to its first part, start {number}':<42} {seconds:6.2f} s   (goal < 20 s)")


def _seconds(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - started


def _to_first_part(command: list[str]) -> float:
    """Seconds until the run says that rows of a stage are done."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seconds = None
    for line in process.stderr:
        done = re.search(r": ([\d,]+) of [\d,]+ rows", line)
        if seconds is None and done and done[1] != "0":
            seconds = time.monotonic() - started
    process.wait()
    return seconds if seconds is not None else time.monotonic() - started


if __name__ == "__main__":
    main()
