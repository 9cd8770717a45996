"""Chunks of rows on their way through the operators of one task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass
class Chunk:
    """Some rows of a part: `rows` are positions in the part, int64_n; `table` has the key and the columns so far.

    `stored` holds the pictures' bytes once somebody needed them; `pixels` the decoded ones, shared by all operators.
    """

    rows: np.ndarray
    table: pa.Table
    stored: list[bytes | None] | None = None
    pixels: dict[int, Any] = field(default_factory=dict)

    def take(self, places: np.ndarray) -> "Chunk":
        """The rows at those places of the chunk."""
        if len(places) == len(self.rows) and (places == np.arange(len(places))).all():
            return self
        stored = None if self.stored is None else [self.stored[i] for i in places]
        return Chunk(self.rows[places], self.table.take(pa.array(places)), stored, self.pixels)

    def with_columns(self, added: pa.Table, names: Sequence[str]) -> "Chunk":
        """The chunk with columns added under visible names."""
        table = self.table
        for name, column in zip(names, added.columns, strict=True):
            table = table.append_column(name, column)
        return Chunk(self.rows, table, self.stored, self.pixels)


def gather(chunks: Sequence[Chunk], rows: np.ndarray) -> Chunk:
    """The rows, in the order asked for, out of chunks that hold them."""
    together = np.concatenate([chunk.rows for chunk in chunks])
    order = np.argsort(together, kind="stable")
    places = order[np.searchsorted(together, rows, sorter=order)]
    table = pa.concat_tables([chunk.table for chunk in chunks]).take(pa.array(places))
    if any(chunk.stored is None for chunk in chunks):
        return Chunk(rows, table)
    stored = [picture for chunk in chunks for picture in chunk.stored or []]
    return Chunk(rows, table, [stored[i] for i in places])
