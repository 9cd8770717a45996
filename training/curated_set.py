"""The rows of one curated set in the order of training, read strictly: digests, lengths and keys are checked."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from schemas.errors import InputError, RunError
from schemas.manifest import Manifest, ShardEntry
from schemas.shard import Sample, read_shard
from schemas.training import TrainingSet
from training.order import Group, order_from
from training.stored_files import beside, is_url, local, manifest_at, manifests_of, read_file

_STORED = ""  # the name of the shard's own caption among a row's captions


@dataclass(frozen=True)
class Row:
    """A pair: its key, its captions by column, and its picture as stored, or decoded as uint8 pixels_HWC."""

    key: str
    captions: Mapping[str, str]
    picture: bytes | np.ndarray | None


@dataclass
class Cache:
    """Decoded shards, as many as fit; `room_bytes` is what is left."""

    room_bytes: int
    picture_bytes: int
    decode_all: Callable[[Sequence[bytes | None]], list[np.ndarray | None]]
    shards: dict[str, list[Row]] = field(default_factory=dict)

    def offer(self, location: str, rows: list[Row]) -> list[Row]:
        """The rows, decoded and kept if there is room for them."""
        needed = len(rows) * self.picture_bytes
        if needed > self.room_bytes:
            return rows
        pictures = self.decode_all([row.picture if isinstance(row.picture, bytes) else None for row in rows])
        self.room_bytes -= needed
        self.shards[location] = [replace(row, picture=picture) for row, picture in zip(rows, pictures, strict=True)]
        return self.shards[location]


class CuratedSet:
    """One version of a curated set, without the rows held out; `location` is its manifest, a path or a URL."""

    def __init__(self, location: Path | str, captions: Mapping[str, float], weight: float = 1.0) -> None:
        self.location = local(str(location))
        self.manifest: Manifest = manifest_at(self.location)
        self.shards: tuple[ShardEntry, ...] = tuple(s for s in self.manifest.training_shards if s.rows)
        self.weight = weight
        taken_out = sum(shard.redacted for shard in self.manifest.shards)
        # Rows that a purge took out shift all behind them: nobody goes on there from a position before it.
        self.label = f"{self.manifest.name}@{self.manifest.version}" + (f" without {taken_out}" if taken_out else "")
        self.captions = captions
        self._checked: set[str] = set()
        self._refuse_unfit()

    @property
    def path(self) -> Path:
        """The manifest's file, where the set lies on this machine (`is_url` of its location says so)."""
        assert not is_url(self.location), "a set behind a URL has no path"
        return Path(self.location)

    @property
    def rows(self) -> int:
        """Rows to train on."""
        return sum(shard.rows for shard in self.shards)

    def from_row(
        self, start: int, shuffle_rows: int, seed: Sequence[int], cache: Cache, reader: Executor | None = None
    ) -> Iterator[tuple[Row, str]]:
        """(row, its caption in that epoch) without end, after `start` rows have been seen.

        `reader` reads the next group of shards while the rows of this one are handed out; without it, a group is read
        when its turn comes. Raises RunError.
        """
        counts = [shard.rows for shard in self.shards]

        def read_group(group: Group) -> list[Row]:
            return [row for number in group for row in self._read(self.shards[number], cache)]

        def begun(group: Group) -> Callable[[], list[Row]]:
            return partial(read_group, group) if reader is None else reader.submit(read_group, group).result

        groups = order_from(counts, shuffle_rows, seed, start)
        coming = next(groups)
        read = begun(coming[1])
        while True:
            (epoch, _, positions), rows = coming, read()
            coming = next(groups)
            read = begun(coming[1])
            for position in positions:
                row = rows[position]
                yield row, self._caption(row, f"{seed[0]}:{epoch}:{row.key}")

    def _read(self, shard: ShardEntry, cache: Cache) -> list[Row]:
        """The rows of a shard; its length and digest are checked the first time. Raises RunError."""
        tar = beside(self.location, str(shard.tar))
        if tar in cache.shards:
            return cache.shards[tar]
        data = read_file(tar)
        if tar not in self._checked:
            self._require_same(tar, data, shard)
            self._checked.add(tar)
        rows = [self._row(sample) for sample in read_shard(tar, io.BytesIO(data))]
        if len(rows) != shard.rows:
            raise RunError(f"{tar}: has {len(rows):,} samples, {self.location} names {shard.rows:,}")
        return cache.offer(tar, rows)

    def _require_same(self, tar: str, data: bytes, shard: ShardEntry) -> None:
        if len(data) != shard.tar_bytes:
            raise RunError(
                f"{tar}: has {len(data):,} bytes, {self.location} names {shard.tar_bytes:,}; it was cut short or "
                "replaced: copy the set again, or run the curation again"
            )
        if hashlib.sha256(data).hexdigest() != shard.tar_sha256:
            raise RunError(
                f"{tar}: is not the file that {self.location} names (another SHA-256); run the curation again"
            )

    def _row(self, sample: Sample) -> Row:
        captions = {}
        if self.captions:
            columns = json.loads(sample.members.get("json", b"{}"))
            captions = {c: columns[c] for c in self.captions if isinstance(columns.get(c), str) and columns[c]}
        return Row(sample.key, captions or {_STORED: sample.caption}, sample.picture)

    def _caption(self, row: Row, draw: str) -> str:
        """One of the row's captions by weight; the same for the same draw."""
        names = list(row.captions)
        if len(names) == 1:
            return row.captions[names[0]]
        limits = np.cumsum([self.captions[name] for name in names])
        point = int.from_bytes(hashlib.sha256(draw.encode()).digest()[:6]) / 2**48 * limits[-1]
        return row.captions[names[int(np.searchsorted(limits, point, side="right"))]]

    def _refuse_unfit(self) -> None:
        name = f"data set {self.location}"
        if any(shard.tar is None for shard in self.shards):
            raise InputError(f"{name}: has no pictures (shards.format is parquet); curate it with format: webdataset")
        if not self.rows:
            raise InputError(f"{name}: has no rows to train on")
        columns = [column.name for column in self.manifest.columns if column.in_shards]
        missing = [column for column in self.captions if column not in columns]
        if missing:
            raise InputError(
                f"{name}: its shards have no column {missing[0]!r} for captions; they have: {', '.join(columns)}"
            )


def open_sets(entries: Sequence[TrainingSet]) -> list[CuratedSet]:
    """The sets that the entries name; sets of one glob share its weight by their rows. Raises InputError."""
    sets = []
    for entry in entries:
        found = [CuratedSet(location, entry.captions) for location in manifests_of(entry.set)]
        rows = sum(one.rows for one in found)
        for one in found:
            one.weight = entry.weight * one.rows / rows
        sets += found
    return sets
