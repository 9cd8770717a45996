"""Partitions that earlier jobs left in files, as what jobs read: whole, or in tiles where one is too large.

F: files; G: partitions. Every file has the rows of partition 0, then those of 1, and so on. A partition of more rows
than a job may hold is cut into tiles of consecutive rows: the pairs of two tiles need only those two, so no job is
larger than others, however the rows fall.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Slices = tuple[tuple[Any, int, int], ...]  # rows `begin` to `end` of files


@dataclass(frozen=True)
class Partitions:
    """One side of a join: partition g has `counts_FG[f, g]` rows in file f. A file is whatever names it."""

    files: tuple[Any, ...]
    counts_FG: np.ndarray

    @cached_property
    def _begins_FG(self) -> np.ndarray:
        return np.cumsum(self.counts_FG, axis=1) - self.counts_FG

    def rows(self, partition: int) -> int:
        """How many rows a partition has."""
        return int(self.counts_FG[:, partition].sum())

    def tiles(self, partition: int, most: int) -> list[Slices]:
        """The rows of a partition in pieces of at most so many, in the order of files and rows."""
        begins_F = self._begins_FG[:, partition]
        places_F1 = np.concatenate([[0], np.cumsum(self.counts_FG[:, partition])])
        rows = int(places_F1[-1])
        return [_slices(self.files, begins_F, places_F1, a, min(a + most, rows)) for a in range(0, rows, most)]


def pairs_of_tiles(sides: Sequence[Partitions], partition: int, most: int) -> list[tuple[Slices, Slices | None]]:
    """What is compared so that a partition's pairs are found by jobs of at most `most` rows: a tile, and another.

    Of one side each tile with itself (None) and with all after it; of two, all of the left with all of the right.
    """
    is_whole = sum(side.rows(partition) for side in sides) <= most
    tiles = [side.tiles(partition, most if is_whole else max(most // 2, 1)) for side in sides]
    return list(_of_one(tiles[0])) if len(tiles) == 1 else [(left, right) for left in tiles[0] for right in tiles[1]]


def _of_one(tiles: list[Slices]) -> Iterator[tuple[Slices, Slices | None]]:
    for number, tile in enumerate(tiles):
        yield tile, None
        yield from ((tile, after) for after in tiles[number + 1 :])


def _slices(files: Sequence[Any], begins_F: np.ndarray, places_F1: np.ndarray, start: int, stop: int) -> Slices:
    """The rows `start` to `stop` of a partition; those of file f come at `places_F1[f]` and lie at `begins_F[f]`."""
    found = []
    for f in np.flatnonzero((places_F1[1:] > start) & (places_F1[:-1] < stop)).tolist():
        shift = int(begins_F[f] - places_F1[f])
        low, high = max(start, int(places_F1[f])), min(stop, int(places_F1[f + 1]))
        found.append((files[f], low + shift, high + shift))
    return tuple(found)
