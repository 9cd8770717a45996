"""A pool's distinct vectors by cell: the pairs that a join compares are those that share a cell.

U, V: distinct vectors on the left and right; M: memberships; K: cells; p: cells per vector; P: pairs; D: numbers per
vector.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from curation.dedup.embeddings.cells import nearest_cells
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.kmeans import SAMPLE_PER_CELL, KMeans
from curation.dedup.join import Values

MOST_IN_ONE_CELL = 20_000  # distinct vectors that are compared all with all


@dataclass(frozen=True)
class VectorsByCell:
    """Distinct vectors and their cells, lowest first, as `cells_Up` (int32).

    `members_M[starts_K[k]:starts_K[k + 1]]` are the vectors in cell k, in ascending order.
    """

    vectors: Vectors
    cells_Up: np.ndarray
    members_M: np.ndarray
    starts_K: np.ndarray

    @classmethod
    def of(
        cls,
        vectors_UD: np.ndarray,
        centroids_KD: np.ndarray | None = None,
        nearest: int | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> "VectorsByCell":
        """Put vectors (which have a direction) into their `nearest` cells, or all in one cell without centroids.

        `nearest` is `cells_per_vector` of them by default.
        """
        vectors = Vectors.of(vectors_UD)
        if centroids_KD is None:
            return cls.in_one_cell(vectors)
        centroids = Vectors.of(centroids_KD)
        cells_Up, _ = nearest_cells(vectors, centroids, nearest or cells_per_vector(len(centroids_KD)), device, threads)
        return cls._gathered(vectors, np.sort(cells_Up, axis=1), len(centroids_KD))

    @classmethod
    def in_one_cell(cls, vectors: Vectors) -> "VectorsByCell":
        """Vectors that are compared all with all."""
        return cls._gathered(vectors, np.zeros((len(vectors.norm_N), 1), np.int32), 1)

    @classmethod
    def of_some_cells(cls, vectors: Vectors, cells_Up: np.ndarray, cells: int, some: range) -> "VectorsByCell":
        """Vectors whose cells (lowest first, of so many) are known, as members of some of the cells only."""
        places_M = np.flatnonzero((cells_Up.ravel() >= some.start) & (cells_Up.ravel() < some.stop))
        cell_M = cells_Up.ravel()[places_M]
        members_M = places_M[np.argsort(cell_M, kind="stable")] // cells_Up.shape[1]
        starts_K1 = np.concatenate([[0], np.cumsum(np.bincount(cell_M, minlength=cells))])
        return cls(vectors, cells_Up, members_M, starts_K1)

    @classmethod
    def _gathered(cls, vectors: Vectors, cells_Up: np.ndarray, cells: int) -> "VectorsByCell":
        """With the members of each cell."""
        order_M = np.argsort(cells_Up.ravel(), kind="stable")
        sizes_K = np.bincount(cells_Up.ravel(), minlength=cells)
        return cls(vectors, cells_Up, order_M // cells_Up.shape[1], np.concatenate([[0], np.cumsum(sizes_K)]))

    @property
    def values(self) -> Values:
        """What jobs read of it."""
        return self.vectors.bits_ND, self.vectors.norm_N, self.cells_Up, self.members_M, self.starts_K

    @classmethod
    def from_values(cls, values: Values) -> "VectorsByCell":
        """The vectors by cell again, from `values`."""
        bits_UD, norm_U, *cells = values
        return cls(Vectors(bits_UD, norm_U), *cells)


def pool_centroids(vectors_UD: np.ndarray, kmeans: KMeans) -> np.ndarray | None:
    """The centroids for a pool of distinct vectors, numbered by hash; None if comparing all with all is cheap enough.

    The work of assigning grows with the number of cells, that of comparing shrinks with it: √N keeps both at N^1.5.
    Cells eight times as large as the mean are divided.
    """
    cells = pool_cells(len(vectors_UD))
    return None if cells is None else centroids_of_sample(vectors_UD[: cells * SAMPLE_PER_CELL], cells, kmeans)


def pool_cells(distinct: int) -> int | None:
    """In how many cells to put so many distinct vectors, before large ones are divided; None for no cells at all."""
    return None if distinct <= MOST_IN_ONE_CELL else round(1.25 * distinct**0.5)


def centroids_of_sample(sample_SD: np.ndarray, cells: int, kmeans: KMeans) -> np.ndarray:
    """The centroids of so many cells, and of the parts of large ones; the sample is a pool's first 64 per cell."""
    return kmeans.split_large(sample_SD, kmeans.train(sample_SD, cells), 8 * SAMPLE_PER_CELL)


def cells_per_vector(cells: int) -> int:
    """In how many cells of so many a vector is looked for: the fourth root of their number.

    Measured on vectors without clusters and with pairs at cosines from 0.94 to 0.98, 180 to 1,300 cells: this finds
    99 % of the pairs or more. Two cells per vector find 87 % at 180 cells, and 55 % at 1,300. A pool that needs more
    is told by `cells_for_recall`.
    """
    return math.ceil(cells**0.25)


@njit(cache=True, nogil=True)
def first_common_cell(left_cells_Up, right_cells_Vp, left_P, right_P):  # type: ignore[no-untyped-def]
    """The lowest cell that both vectors of a pair are in, or -1; each vector's cells are in ascending order."""
    first_P = np.full(len(left_P), -1, np.int32)
    for p in range(len(left_P)):
        left, right = left_cells_Up[left_P[p]], right_cells_Vp[right_P[p]]
        a, b = 0, 0
        while a < len(left) and b < len(right) and left[a] != right[b]:
            if left[a] < right[b]:
                a += 1
            else:
                b += 1
        if a < len(left) and b < len(right):
            first_P[p] = left[a]
    return first_P
