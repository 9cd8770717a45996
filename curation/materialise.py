"""The last step: the rows of a selection, shuffled by seed, written as shards, and a manifest over them.

A shard holds ranks [i·rows, (i+1)·rows) of the shuffled rows, and is committed on its own: a killed run goes on where
it was. The bytes depend on the selection alone, not on parts, workers or time.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from curation.execution.executor import Executor, run_each
from curation.fates import Fates
from curation.ingest import Snapshot
from curation.shard_files import ShardTask, write_shard
from curation.shuffle import Shuffle
from curation.stage import Plan
from curation.storage import layout
from curation.storage.store import FileRef, Store


@dataclass(frozen=True)
class ShardsWanted:
    """The `shards` section of a specification, checked against the plan."""

    format: str
    rows: int
    seed: int
    caption: str
    columns: tuple[str, ...]  # of the Parquet; without key, url and caption
    holdout_rows: int = 0


@dataclass(frozen=True)
class WrittenShard:
    """A shard in the store; `tar` is None where the set has no pictures."""

    name: str
    rows: int
    holdout: bool
    parquet: FileRef
    tar: FileRef | None

    def record(self) -> dict[str, Any]:
        """The shard as a JSON record."""
        tar = self.tar.record() if self.tar else None
        return {
            "name": self.name,
            "rows": self.rows,
            "holdout": self.holdout,
            "parquet": self.parquet.record(),
            "tar": tar,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "WrittenShard":
        """The shard of a JSON record."""
        tar = FileRef(**record["tar"]) if record["tar"] else None
        return cls(record["name"], record["rows"], record["holdout"], FileRef(**record["parquet"]), tar)


@dataclass(frozen=True)
class _Slot:
    name: str
    holdout: bool
    rows: int


class Materialiser:
    """Writes the shards of one decided plan."""

    def __init__(self, store: Store, plan: Plan, snapshot: Snapshot, fates: Fates, wanted: ShardsWanted) -> None:
        self._store = store
        self._plan = plan
        self._snapshot = snapshot
        self._fates = fates
        self._wanted = wanted
        self._slots = list(self._cut())
        self._done: dict[int, WrittenShard] = {}
        for number in range(len(self._slots)):
            record = store.get(self._record_name(number))
            if record is not None:
                self._done[number] = WrittenShard.from_record(record)

    @property
    def missing(self) -> list[int]:
        """Shards that are not written yet."""
        return [number for number in range(len(self._slots)) if number not in self._done]

    @property
    def with_pictures(self) -> bool:
        """Whether the shards hold pictures."""
        return self._wanted.format == "webdataset"

    def write(self, executor: Executor | None, tell: Callable[[int, int], None]) -> list[WrittenShard]:
        """Write the missing shards, here or on an executor, and return all."""
        if self.missing:
            written = _here(self._tasks()) if executor is None else _on(executor, self._tasks())
            for number, refs in written:
                slot = self._slots[number]
                shard = WrittenShard(slot.name, slot.rows, slot.holdout, refs[0], refs[1])
                if not self._store.put(self._record_name(number), shard.record()):
                    shard = WrittenShard.from_record(self._store.get(self._record_name(number)))
                self._done[number] = shard
                tell(len(self._done), len(self._slots))
        return [self._done[number] for number in range(len(self._slots))]

    def _cut(self) -> Iterator[_Slot]:
        """Shards of the training rows, then those of the rows held out."""
        held = min(self._wanted.holdout_rows, self._fates.alive)
        for prefix, holdout, rows in (("shard", False, self._fates.alive - held), ("holdout", True, held)):
            for number in range(math.ceil(rows / self._wanted.rows)):
                size = min(self._wanted.rows, rows - number * self._wanted.rows)
                yield _Slot(f"{prefix}-{number:06d}", holdout, size)

    def _record_name(self, number: int) -> str:
        return layout.plan(self._plan.name, self._slots[number].name)

    def _tasks(self) -> Iterator[tuple[int, ShardTask]]:
        """(number, task) of every missing shard, as the shuffled rows come."""
        wanted, missing = self._wanted, set(self.missing)
        shuffle = Shuffle(
            self._store,
            self._plan,
            self._snapshot,
            self._fates,
            (wanted.caption, *wanted.columns),
            self.with_pictures,
            wanted.seed,
            wanted.holdout_rows,
        )
        for number, (table, pictures) in enumerate(shuffle.tables([slot.rows for slot in self._slots])):
            if number in missing:
                yield number, ShardTask(self._store, table, pictures, wanted.caption)


def _here(tasks: Iterator[tuple[int, ShardTask]]) -> Iterator[tuple[int, tuple[FileRef, FileRef | None]]]:
    """Write in threads, a few shards at a time: Parquet is written outside of Python's lock."""
    most = min(8, os.cpu_count() or 1)
    running: deque[tuple[int, Future[Any]]] = deque()
    with ThreadPoolExecutor(most) as threads:
        for number, task in tasks:
            running.append((number, threads.submit(write_shard, task)))
            if len(running) > most:
                first, future = running.popleft()
                yield first, future.result()
        for number, future in running:
            yield number, future.result()


def _on(
    executor: Executor, tasks: Iterator[tuple[int, ShardTask]]
) -> Iterator[tuple[int, tuple[FileRef, FileRef | None]]]:
    numbers = {}

    def named() -> Iterator[tuple[str, ShardTask]]:
        for number, task in tasks:
            numbers[f"shard {number}"] = number
            yield f"shard {number}", task

    for name, refs in run_each(executor, write_shard, named()):
        yield numbers[name], refs
