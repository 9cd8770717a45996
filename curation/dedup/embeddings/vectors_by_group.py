"""Vectors that outgrow memory, sent to where they are compared: to groups of cells.

U: distinct vectors; S: vectors of a sample; K: cells; p: cells per vector; G: groups; D: numbers per vector. A group is
a run of cells, and gets every vector that is in one of them, once, in the order of their numbers. Cells near each other
have numbers near each other, so most of a vector's cells are in one group: it is sent less often than p times.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.dedup.embeddings.cells import nearest_cells
from curation.dedup.embeddings.cosine_recall import Recall, Sample, pairs_needing_cells, recall_of_sample
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.spilled_vectors import NumberedFile
from curation.dedup.exchange import leave, rows_of
from curation.dedup.join import Values

_ROWS_PER_TILE = 1 << 14


@dataclass(frozen=True)
class CellsNeeded:
    """In how many cells per vector the pairs of a sample with the vectors of a file would be found.

    The values are centroids_KD, sample_SD, and number_S of a sample of the same pool.
    """

    vectors: NumberedFile
    within: bool  # the sample is of the same pool
    cosine: Fraction
    device: str
    work: float

    def run(self, values: Values) -> np.ndarray:
        """Counts as `pairs_needing_cells` gives them."""
        centroids_KD, sample_SD, number_S = values
        sample = Sample(Vectors.of(sample_SD), number_S if self.within else None)
        vectors = Vectors.of(rows_of(self.vectors.file))
        return pairs_needing_cells(
            sample, vectors, self.vectors.begin, Vectors.of(centroids_KD), self.cosine, self.device
        )


@dataclass(frozen=True)
class Assign:
    """Leave the `nearest` cells of each vector of a file, lowest first, as int32 of shape (vectors, p).

    Gives the size of each cell as sizes_K, and which pairs of the sample are found by these cells. Values as for
    `CellsNeeded`.
    """

    vectors: NumberedFile
    to: Path
    nearest: int
    within: bool
    cosine: Fraction
    device: str
    work: float

    def run(self, values: Values) -> tuple[np.ndarray, Recall]:
        """Memory goes with the file."""
        centroids_KD, sample_SD, number_S = values
        vectors, centroids = Vectors.of(rows_of(self.vectors.file)), Vectors.of(centroids_KD)
        cells_Up = self._cells(vectors, centroids)
        leave(self.to, [cells_Up], len(cells_Up), cells_Up)
        sizes_K = np.bincount(cells_Up.ravel(), minlength=len(centroids_KD))
        sample = Sample(Vectors.of(sample_SD), number_S if self.within else None)
        if not len(sample_SD):
            return sizes_K, Recall(0, 0, 0)
        cells_Sp = self._cells(sample.vectors, centroids)
        first = self.vectors.begin
        return sizes_K, recall_of_sample(sample, cells_Sp, vectors, cells_Up, first, self.cosine, self.device)

    def _cells(self, vectors: Vectors, centroids: Vectors) -> np.ndarray:
        return np.sort(nearest_cells(vectors, centroids, self.nearest, self.device)[0], axis=1)


class Moved(NamedTuple):
    """Vectors in the order of groups, their numbers, and their cells: three files of as many rows."""

    vectors: Path
    numbers: Path
    cells: Path

    @classmethod
    def at(cls, path: Path) -> "Moved":
        """Three files beside each other."""
        return cls(*(path.with_name(f"{path.name}-{name}") for name in cls._fields))


@dataclass(frozen=True)
class Move:
    """Leave the vectors of a file in the order of groups, each once in each group that one of its cells is in.

    Gives how many each group gets as counts_G. The value is the first cell of each group, as int32 first_G.
    """

    vectors: NumberedFile
    cells: Path
    to: Moved
    work: float

    def run(self, values: Values) -> np.ndarray:
        """Memory goes with the file."""
        (first_G,) = values
        cells_Up = rows_of(self.cells)
        group_Up = np.searchsorted(first_G, cells_Up, side="right") - 1
        is_first_Up = np.ones(group_Up.shape, np.bool_)
        is_first_Up[:, 1:] = group_Up[:, 1:] != group_Up[:, :-1]  # cells ascend, and so do groups
        row_M, place_M = np.nonzero(is_first_Up)
        group_M = group_Up[row_M, place_M]
        row_M = row_M[np.argsort(group_M, kind="stable")]
        vectors_UD = rows_of(self.vectors.file)
        leave(self.to.vectors, _tiles(vectors_UD, row_M), len(row_M), vectors_UD)
        leave(self.to.cells, _tiles(cells_Up, row_M), len(row_M), cells_Up)
        leave(self.to.numbers, [row_M + self.vectors.begin], len(row_M), row_M)
        return np.bincount(group_M, minlength=len(first_G))


def grouped(sizes_K: Sequence[int], most: int) -> np.ndarray:
    """The first cell of each group, as int32 first_G: a group's cells have at most so many members, or it has one."""
    first_G, held = [0], 0
    for cell, size in enumerate(sizes_K):
        if held and held + size > most:
            first_G.append(cell)
            held = 0
        held += size
    return np.array(first_G, np.int32)


def _tiles(array_UX: np.ndarray, row_M: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of an array, some at a time."""
    for start in range(0, len(row_M), _ROWS_PER_TILE):
        yield array_UX[row_M[start : start + _ROWS_PER_TILE]]
