"""Pairs that a join has found, kept under the digest of what was joined: a stricter threshold re-uses them.

A join is named by its values and by all that decides which pairs it finds but the threshold. Each search leaves a
record, put if absent, in a chain 0, 1, 2 …: its threshold, its pairs with what was measured of each, and facts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup.join import PairBlock
from curation.storage import layout
from curation.storage.store import FileRef, Store
from curation.storage.tables import parquet_writer

_ROWS_PER_BLOCK = 1 << 20


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of one search."""

    store: Store
    file: FileRef
    facts: Mapping[str, Any]

    def blocks(self) -> Iterator[PairBlock]:
        """The pairs in the order in which they were found."""
        with pq.ParquetFile(self.store.path(self.file.name), memory_map=True) as opened:
            for batch in opened.iter_batches(_ROWS_PER_BLOCK, use_threads=False):
                left_P, right_P, measure_P = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
                yield left_P, right_P, measure_P


def recall_pairs(store: Store, join: str, covers: Callable[[str], bool]) -> FoundPairs | None:
    """The first search of a join whose threshold `covers` says is wide enough, or None."""
    number = 0
    while (record := store.get(layout.pairs(join, number))) is not None:
        if covers(record["threshold"]):
            return FoundPairs(store, FileRef(**record["file"]), record["facts"])
        number += 1
    return None


def keep_pairs(
    store: Store, join: str, threshold: str, blocks: Iterable[PairBlock], facts: Mapping[str, Any]
) -> FoundPairs:
    """Write the pairs of a search as they come, and record it."""
    with store.new_file(".parquet") as file:
        _write(blocks, file.path)
    found = FoundPairs(store, file.ref, dict(facts))
    record = {"threshold": threshold, "file": file.ref.record(), "facts": found.facts}
    number = 0
    while not store.put(layout.pairs(join, number), record):
        number += 1
    return found


def _write(blocks: Iterable[PairBlock], path: Any) -> None:
    writer = None
    try:
        for left_P, right_P, measure_P in blocks:
            table = pa.table({"left": left_P, "right": right_P, "measure": measure_P})
            writer = writer or parquet_writer(path, table.schema)
            writer.write_table(table)
        if writer is None:
            empty = pa.table({"left": pa.array([], pa.int64()), "right": pa.array([], pa.int64())})
            empty = empty.append_column("measure", pa.array([], pa.int64()))
            writer = parquet_writer(path, empty.schema)
    finally:
        if writer is not None:
            writer.close()
