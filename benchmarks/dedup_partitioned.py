"""Memory of `dedup: {cosine}` where all vectors are gathered, and where jobs each have a share: driver, largest task.

    python benchmarks/dedup_partitioned.py [--rows 200000] [--width 512] [--cosine 0.95] [--partition-mb 16]

Both ways run in processes of their own over the same vectors, which lie in a file that the driver maps: pages of it
count where they are read. Tasks run in one other process, one at a time. Memory is PSS, looked at every 20 ms, less
what the process had before (imports, compiled code). The survivors must be the same.

Goal: no task holds more than five partitions and what its product needs (64 MB), however many rows there are.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from dedup_semantic import clip_like

from curation.selection import inputs
from curation.selection.dedup import Dedup
from curation.selection.likeness import partitions
from curation.selection.step import Desk
from curation.storage.store import Store

PRODUCT_MB = 64
EVERY_S = 0.02


def main() -> None:
    """Print the memory of both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cosine", default="0.95")
    parser.add_argument("--partition-mb", type=int, default=16)
    parser.add_argument("--way", choices=["gathered", "partitioned"], help="run one way and print it as JSON")
    parser.add_argument("--data", type=Path, help="of that way: where the vectors lie")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(_run(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "vectors.arrow"
        _write(data, arguments.rows, arguments.width)
        print(
            f"{arguments.rows:,} vectors, {data.stat().st_size / 1e6:,.0f} MB; partitions {arguments.partition_mb} MB"
        )
        told = {way: _one(way, data, arguments) for way in ("gathered", "partitioned")}
    for way, one in told.items():
        own_mb = f"{one['own_mb']:,.0f} without pages of files"
        print(f"{way:<12} {one['seconds']:6.1f} s, driver {one['driver_mb']:7,.0f} MB ({own_mb})")
    tasks = told["partitioned"]["task_mb"]
    for kind, peak_mb in tasks.items():
        print(f"  {kind:<14} {peak_mb:7,.0f} MB")
    goal_mb = 5 * arguments.partition_mb + PRODUCT_MB
    print(f"the largest task: {max(tasks.values()):,.0f} MB (goal {goal_mb:,})")
    assert told["gathered"]["survivors"] == told["partitioned"]["survivors"], "the survivors differ"
    print("the survivors are the same")


def _one(way: str, data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    said = ["--width", arguments.width, "--cosine", arguments.cosine, "--partition-mb", arguments.partition_mb]
    command = [sys.executable, __file__, "--way", way, "--data", data, *said]
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write(path: Path, rows: int, width: int) -> None:
    """Vectors with keys, as a step sees them, in batches of a part's size."""
    vectors_ND = clip_like(rows, width)
    kind = pa.binary(2 * width)
    with pa.ipc.new_file(str(path), pa.schema([("key", pa.string()), ("by_0", kind)])) as writer:
        for start in range(0, rows, 10_000):
            some_ND = np.ascontiguousarray(vectors_ND[start : start + 10_000])
            keys = [hashlib.sha256(b"%d" % n).hexdigest()[:32] for n in range(start, start + len(some_ND))]
            stored = pa.Array.from_buffers(kind, len(some_ND), [None, pa.py_buffer(some_ND)])
            writer.write_batch(pa.record_batch([pa.array(keys), stored], names=["key", "by_0"]))


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """One way: seconds, peaks, and a digest of who survives."""
    if arguments.way == "partitioned":
        inputs.GATHERED_BYTES = 0
        partitions.PARTITION_BYTES = arguments.partition_mb << 20
        partitions.SHARE_BYTES = min(arguments.partition_mb, 32) << 20
    step = Dedup(by="v", cosine=float(arguments.cosine))
    tasks = Tasks()
    step.decide(pa.table({"key": ["a", "b"], "by_0": pa.array([b"\x00<", b"\x00<"], pa.binary(2))}))  # compiles
    rows = pa.ipc.open_file(pa.memory_map(str(arguments.data))).read_all()
    with tempfile.TemporaryDirectory() as folder, Peak(os.getpid()) as driver:
        desk = Desk(Store.open(folder), tasks.find) if arguments.way == "partitioned" else Desk(Store.open(folder))
        began = time.perf_counter()
        kept_N = step.decide(rows, (), desk).kept
        seconds = time.perf_counter() - began
    tasks.close()
    survivors = hashlib.sha256(kept_N.tobytes()).hexdigest()
    return {
        "seconds": seconds,
        "driver_mb": driver.mb,
        "own_mb": driver.own_mb,
        "task_mb": tasks.peak_mb,
        "survivors": survivors,
    }


class Peak:
    """The most memory (PSS) that a process has while this is open, less what it had before, in MB."""

    def __init__(self, number: int) -> None:
        self._file, self._ended = Path(f"/proc/{number}/smaps_rollup"), threading.Event()
        self._before = self._now()
        self.mb, self.own_mb = 0.0, 0.0  # own: without pages of files

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(EVERY_S):
            now = self._now()
            self.mb, self.own_mb = max(self.mb, now[0] - self._before[0]), max(self.own_mb, now[1] - self._before[1])

    def _now(self) -> tuple[float, float]:
        """PSS and its anonymous part, in MB."""
        lines = dict(line.split(":", 1) for line in self._file.read_text().splitlines()[1:])
        pss_kb, anonymous_kb = (float(lines[name].split()[0]) for name in ("Pss", "Pss_Anon"))
        return pss_kb / 1e3, anonymous_kb / 1e3


class Tasks:
    """Runs jobs in another process, one at a time; the most memory of each kind of job."""

    def __init__(self) -> None:
        self.peak_mb: dict[str, float] = {}
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._process = self._pool.submit(_ready).result()

    def find(self, jobs: Sequence[Any], values: tuple[np.ndarray, ...]) -> Iterator[Any]:
        for job in jobs:
            kind = type(getattr(job.errand, "job", job.errand)).__name__
            with Peak(self._process) as peak:
                found = self._pool.submit(_done, job, values).result()
            self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), peak.mb)
            yield from found

    def close(self) -> None:
        self._pool.shutdown()


def _ready() -> int:
    """Load compiled code by a small join; this process's number."""
    step = Dedup(by="v", cosine=0.9)
    inputs.GATHERED_BYTES = 0
    stored = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float16)
    rows = pa.table(
        {"key": [f"{n:032x}" for n in range(50)], "by_0": pa.array([v.tobytes() for v in stored], pa.binary(128))}
    )
    step.decide(rows)
    return os.getpid()


def _done(job: Any, values: tuple[np.ndarray, ...]) -> list[Any]:
    return list(job.pairs(values))


if __name__ == "__main__":
    main()
