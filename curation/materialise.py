"""The last step: the rows of a selection, shuffled by seed, written as shards, and a manifest over them.

The order is by SHA-256(seed, key), a shard holds ranks [i·rows, (i+1)·rows), members stand in a fixed order: the bytes
depend on the selection alone, not on parts, workers or time.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.execution.executor import Executor, run_each
from curation.fates import Fates
from curation.ingest import Snapshot
from curation.part_rows import PartRows, read_pictures
from curation.stage import Plan
from curation.storage import layout
from curation.storage.store import FileRef, Store
from curation.storage.tables import put_table
from schemas.columns import CAPTION, KEY, URL
from schemas.errors import StoreError
from schemas.pixels import stored_format
from schemas.shard import ShardWriter

_CHECK = "stored_sha256 for the check"  # beside a visible column of that name, which need not be asked for
_ROWS_AT_ONCE = 1_000_000  # rows whose columns are held in memory while their shards are written


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
class ShardTask:
    """One shard to write: its table in order, and where its pictures lie."""

    store: Store
    table: pa.Table
    places: tuple[tuple[str, int, int], ...]
    caption: str
    stored_sha256: tuple[str, ...]


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
    ranks: range  # into the order of rows


class Materialiser:
    """Writes the shards of one decided plan; each is committed on its own, so a killed run goes on where it was."""

    def __init__(self, store: Store, plan: Plan, snapshot: Snapshot, fates: Fates, wanted: ShardsWanted) -> None:
        self._store = store
        self._plan = plan
        self._snapshot = snapshot
        self._wanted = wanted
        self._marks = fates.marks
        self._parts, self._rows, keys = _alive(store, plan, snapshot, fates)
        self._order, self._held_out = shuffled(keys, wanted.seed, wanted.holdout_rows)
        self._slots = list(self._cut())
        self._done: dict[int, WrittenShard] = {}
        for number in range(len(self._slots)):
            record = store.get(self._record_name(number))
            if record is not None:
                self._done[number] = WrittenShard.from_record(record)

    @property
    def total(self) -> int:
        """How many shards the set has."""
        return len(self._slots)

    @property
    def missing(self) -> list[int]:
        """Shards that are not written yet."""
        return [number for number in range(self.total) if number not in self._done]

    @property
    def with_pictures(self) -> bool:
        """Whether the shards hold pictures."""
        return self._wanted.format == "webdataset"

    def write(self, executor: Executor | None, tell: Callable[[int, int], None]) -> list[WrittenShard]:
        """Write the missing shards, here or on an executor, and return all."""
        most = max(1, _ROWS_AT_ONCE // self._wanted.rows)
        while missing := self.missing:
            self._write_block(missing[:most], executor, tell)
        return [self._done[number] for number in range(self.total)]

    def _write_block(self, numbers: list[int], executor: Executor | None, tell: Callable[[int, int], None]) -> None:
        tasks = dict(zip(numbers, self._tasks(numbers), strict=True))
        for number, refs in _run(executor, tasks):
            slot = self._slots[number]
            shard = WrittenShard(slot.name, len(slot.ranks), slot.holdout, refs[0], refs[1])
            if not self._store.put(self._record_name(number), shard.record()):
                shard = WrittenShard.from_record(self._store.get(self._record_name(number)))
            self._done[number] = shard
            tell(len(self._done), self.total)

    def _cut(self) -> Iterator[_Slot]:
        """Shards of the training rows, then those of the rows held out."""
        total, held = len(self._order), self._held_out
        for prefix, holdout, start, end in (("shard", False, 0, total - held), ("holdout", True, total - held, total)):
            for number in range(math.ceil((end - start) / self._wanted.rows)):
                first = start + number * self._wanted.rows
                yield _Slot(f"{prefix}-{number:06d}", holdout, range(first, min(end, first + self._wanted.rows)))

    def _record_name(self, number: int) -> str:
        return layout.plan(self._plan.name, f"{self._slots[number].name}")

    def _tasks(self, numbers: Sequence[int]) -> Iterator[ShardTask]:
        """The tables of some shards, gathered in one pass over the parts."""
        ranks = np.concatenate([np.asarray(self._slots[number].ranks) for number in numbers])
        table, places = self._gather(self._order[ranks])
        start = 0
        for number in numbers:
            count = len(self._slots[number].ranks)
            piece = table.slice(start, count)
            sums = tuple(piece[_CHECK].to_pylist()) if self.with_pictures else ()
            piece = piece.drop_columns([_CHECK]) if self.with_pictures else piece
            here = tuple(places[start : start + count]) if self.with_pictures else ()
            yield ShardTask(self._store, piece, here, self._wanted.caption, sums)
            start += count

    def _gather(self, chosen: np.ndarray) -> tuple[pa.Table, list[tuple[str, int, int]]]:
        """Columns and picture places of rows (indices into the alive rows), in the order asked for."""
        names = list(dict.fromkeys([URL.name, CAPTION.name, self._wanted.caption, *self._wanted.columns]))
        parts, rows = self._parts[chosen], self._rows[chosen]
        pieces: list[pa.Table] = []
        where: list[np.ndarray] = []
        places: dict[int, tuple[str, int, int]] = {}
        for slot in np.unique(parts):
            mine = np.flatnonzero(parts == slot)
            member = self._snapshot.parts[slot]
            view = PartRows(self._store, self._plan, member, self._marks.get(member.part.name))
            piece = view.table(names, rows[mine])
            if self.with_pictures:
                assert self._plan.picture_step is not None
                operator = view.operator(self._plan.picture_step)
                sums = operator.columns(["stored_sha256"])["stored_sha256"].take(pa.array(rows[mine]))
                piece = piece.append_column(_CHECK, sums)
                places |= {int(m): operator.locations[int(rows[m])] for m in mine}
            pieces.append(piece)
            where.append(mine)
        back = np.argsort(np.concatenate(where), kind="stable")
        return pa.concat_tables(pieces).take(pa.array(back)), [places[i] for i in range(len(places))]


def shuffled(keys: Sequence[str], seed: int, holdout_rows: int) -> tuple[np.ndarray, int]:
    """Indices of keys by SHA-256(seed, key), those held out last; and how many are held out.

    Held out are the rows with the lowest SHA-256("holdout" + key).
    """
    order = np.argsort(_digests(f"{seed} ", keys), kind="stable")
    if not holdout_rows:
        return order, 0
    held = np.argsort(_digests("holdout", keys), kind="stable")[:holdout_rows]
    out = np.isin(order, held)
    return np.concatenate([order[~out], order[out]]), int(out.sum())


def _digests(prefix: str, keys: Sequence[str]) -> np.ndarray:
    joined = b"".join(hashlib.sha256((prefix + key).encode()).digest() for key in keys)
    return np.frombuffer(joined, "S32") if keys else np.zeros(0, "S32")


def _alive(store: Store, plan: Plan, snapshot: Snapshot, fates: Fates) -> tuple[np.ndarray, np.ndarray, list[str]]:
    parts, rows, keys = [], [], []
    for slot, member in enumerate(snapshot.parts):
        chosen = fates.alive_rows(member.part.name)
        if len(chosen):
            parts.append(np.full(len(chosen), slot))
            rows.append(chosen)
            keys += PartRows(store, plan, member).table([], chosen)[KEY.name].to_pylist()
    empty = np.zeros(0, np.int64)
    return (np.concatenate(parts), np.concatenate(rows), keys) if parts else (empty, empty, [])


def _run(
    executor: Executor | None, tasks: dict[int, ShardTask]
) -> Iterator[tuple[int, tuple[FileRef, FileRef | None]]]:
    if executor is None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # Parquet is written outside of Python's lock
            yield from zip(tasks, threads.map(write_shard, tasks.values()), strict=True)
        return
    named = {f"shard {number}": number for number in tasks}
    for name, refs in run_each(executor, _write, ((name, tasks[number]) for name, number in named.items())):
        yield named[name], refs


def _write(task: ShardTask, **_: Any) -> tuple[FileRef, FileRef | None]:
    return write_shard(task)


def write_shard(task: ShardTask) -> tuple[FileRef, FileRef | None]:
    """Write the Parquet and, where there are pictures, the tar of one shard."""
    parquet = put_table(task.store, _for_readers(task.table))
    if not task.places:
        return parquet, None
    with task.store.new_file(".tar") as file, open(file.path, "wb") as stream, ShardWriter(stream) as tar:
        for start in range(0, task.table.num_rows, 256):
            piece = task.table.slice(start, 256)
            pictures = read_pictures(task.store, task.places[start : start + 256])
            sums = task.stored_sha256[start : start + 256]
            for row, stored, sha256 in zip(_scalars(piece).to_pylist(), pictures, sums, strict=True):
                _require_digest(row[KEY.name], stored, sha256)
                tar.add(row[KEY.name], _members(row, stored, task.caption))
    return parquet, file.ref


def _members(row: dict[str, Any], stored: bytes, caption: str) -> dict[str, bytes]:
    about = {name: _json_value(value) for name, value in row.items()}
    spelling = json.dumps(about, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    return {stored_format(stored): stored, "txt": (row[caption] or "").encode(), "json": spelling.encode()}


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _require_digest(key: str, stored: bytes, sha256: str) -> None:
    found = hashlib.sha256(stored).hexdigest()
    if found != sha256:
        raise StoreError(f"picture of {key}: has SHA-256 {found}, its record says {sha256}; the store is damaged")


def _is_embedding(field: pa.Field) -> bool:
    return pa.types.is_fixed_size_binary(field.type) and bool(field.metadata) and b"width" in field.metadata


def _scalars(table: pa.Table) -> pa.Table:
    return table.select([field.name for field in table.schema if not _is_embedding(field)])


def _for_readers(table: pa.Table) -> pa.Table:
    """Embeddings as lists of float16, which every reader of Parquet understands."""
    for place, field in enumerate(table.schema):
        if _is_embedding(field):
            table = table.set_column(place, field.name, as_lists(table[field.name]))
    return table


def as_lists(column: pa.ChunkedArray) -> pa.Array:
    """An embedding column (fixed-size binary) as lists of float16; NULL stays NULL."""
    values = column.combine_chunks()
    width = values.type.byte_width // 2
    lists = [None if v is None else np.frombuffer(v, np.float16) for v in values.to_pylist()]
    assert all(v is None or len(v) == width for v in lists)
    return pa.array(lists, pa.list_(pa.float16()))
