"""Joins of float16 vectors by cosine: products inside cells of a spherical k-means find candidates, integers decide.

U, V: distinct vectors on the left and right; K: cells; p: cells per vector; P: pairs; D: numbers per vector. A pair
is found if its two vectors share one of the p cells nearest to each, so the pairs are a pure function of (values,
centroids), and all of them where there is one cell. What share is found otherwise is measured, not promised.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.cells import nearest_cells
from curation.dedup.exact_cosine import Vectors, at_least
from curation.dedup.join import Job, PairBlock, Values
from curation.dedup.kmeans import KMeans
from curation.dedup.products import at_least as products_at_least
from curation.dedup.products import error, placed

MOST_IN_ONE_CELL = 20_000  # distinct vectors that are compared all with all
_SAMPLE_PER_CELL = 64

_PRODUCTS_PER_JOB = 1 << 24
_NUMBERS_PER_TILE = 1 << 22  # 16 MB of float32
_STRIP = 256
_FLOPS_PER_S = 1e11  # of one core; only the order of jobs hangs on it


@dataclass(frozen=True)
class Side:
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
    ) -> "Side":
        """Put vectors (which have a direction) into their `nearest` cells, or all in one cell without centroids.

        `nearest` is `cells_per_vector` of them by default.
        """
        vectors = Vectors.of(vectors_UD)
        if centroids_KD is None:
            return cls(vectors, *_by_cell(np.zeros((len(vectors_UD), 1), np.int32), 1))
        centroids = Vectors.of(centroids_KD)
        cells_Up, _ = nearest_cells(vectors, centroids, nearest or cells_per_vector(len(centroids_KD)), device, threads)
        return cls(vectors, *_by_cell(np.sort(cells_Up, axis=1), len(centroids_KD)))

    @property
    def values(self) -> Values:
        """What jobs read of it."""
        return self.vectors.bits_ND, self.vectors.norm_N, self.cells_Up, self.members_M, self.starts_K

    @classmethod
    def from_values(cls, values: Values) -> "Side":
        """The side again, from its values."""
        bits_UD, norm_U, *cells = values
        return cls(Vectors(bits_UD, norm_U), *cells)


def trained_centroids(vectors_UD: np.ndarray, kmeans: KMeans = KMeans()) -> np.ndarray | None:  # noqa: B008
    """The centroids for a pool of distinct vectors, numbered by hash; None if comparing all with all is cheap enough.

    The work of assigning grows with the number of cells, that of comparing shrinks with it: √N keeps both at N^1.5.
    Cells eight times as large as the mean are divided.
    """
    distinct = len(vectors_UD)
    if distinct <= MOST_IN_ONE_CELL:
        return None
    cells = round(1.25 * distinct**0.5)
    sample_SD = vectors_UD[: cells * _SAMPLE_PER_CELL]
    return kmeans.split_large(sample_SD, kmeans.train(sample_SD, cells), 8 * _SAMPLE_PER_CELL)


def cells_per_vector(cells: int) -> int:
    """In how many cells of so many a vector is looked for: the fourth root of their number.

    Measured on vectors without clusters and with pairs at cosines from 0.94 to 0.98, 180 to 1,300 cells: this finds
    99 % of the pairs or more. Two cells per vector find 87 % at 180 cells, and 55 % at 1,300.
    """
    return math.ceil(cells**0.25)


def join_within(side: Side, cosine: Fraction, device: str = "cpu") -> tuple[Sequence[Job], Values]:
    """Jobs, and the values they read, for the pairs left < right inside one set whose cosine is `cosine` or more.

    Pairs come as (left_P, right_P, cosine_P): int64 numbers of vectors, and float32.
    """
    return list(_jobs(side, side, True, cosine, device)), side.values


def join_between(left: Side, right: Side, cosine: Fraction, device: str = "cpu") -> tuple[Sequence[Job], Values]:
    """The same for pairs of a vector on the left and one on the right, whose cells are of the same centroids."""
    return list(_jobs(left, right, False, cosine, device)), left.values + right.values


@dataclass(frozen=True)
class Recall:
    """How many of the pairs of a random sample of vectors with all others are found."""

    found: int
    pairs: int
    sampled: int

    @property
    def estimate(self) -> float:
        """The share that is found; 1 where there is nothing to find."""
        return self.found / self.pairs if self.pairs else 1.0


def measured_recall(
    left: Side, right: Side | None, cosine: Fraction, sampled: int = 1000, device: str = "cpu"
) -> Recall:
    """Compare the first `sampled` vectors (numbered by hash) with all of the right, or of the left itself for None."""
    others = left if right is None else right
    bits_SD, norm_S = left.vectors.bits_ND[:sampled], left.vectors.norm_N[:sampled]
    sample = Side(Vectors(bits_SD, norm_S), *_by_cell(np.zeros((len(norm_S), 1), np.int32), 1))
    whole = Side(others.vectors, *_by_cell(np.zeros((len(others.cells_Up), 1), np.int32), 1))
    jobs, values = join_between(sample, whole, cosine, device)
    found, pairs = 0, 0
    for job in jobs:
        for left_P, right_P, _ in job.pairs(values):
            if right is None:
                is_pair_P = left_P != right_P
                left_P, right_P = left_P[is_pair_P], right_P[is_pair_P]
            pairs += len(left_P)
            found += int((_first_common(left.cells_Up, others.cells_Up, left_P, right_P) >= 0).sum())
    return Recall(found, pairs, len(norm_S))


class Rectangle(NamedTuple):
    """A part of one cell: members left_begin to left_end of it on the left, with right_begin to right_end."""

    cell: int
    left_begin: int
    left_end: int
    right_begin: int
    right_end: int


@dataclass(frozen=True)
class CosineJob:
    """The pairs in some rectangles; `within` says that both sides are one set, whose pairs are wanted once."""

    rectangles: tuple[Rectangle, ...]
    within: bool
    cosine: Fraction
    device: str
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Its pairs, strip by strip."""
        left = Side.from_values(values[:5])
        right = left if self.within else Side.from_values(values[5:])
        width = left.vectors.bits_ND.shape[1]
        widest = max(rectangle.right_end - rectangle.right_begin for rectangle in self.rectangles)
        right_units_RD = np.empty((widest, width), np.float32)
        left_units_LD = np.empty((_STRIP, width), np.float32)
        scratch = np.empty(_STRIP * widest if self.device == "cpu" else 0, np.float32)
        for rectangle in self.rectangles:
            yield from self._pairs_in(rectangle, left, right, left_units_LD, right_units_RD, scratch)

    def _pairs_in(
        self,
        rectangle: Rectangle,
        left: Side,
        right: Side,
        left_units_LD: np.ndarray,
        right_units_RD: np.ndarray,
        scratch: np.ndarray,
    ) -> Iterator[PairBlock]:
        """The pairs in one rectangle, in memory that all rectangles use."""
        cell, left_begin, left_end, right_begin, right_end = rectangle
        left_rows = left.members_M[left.starts_K[cell] :]
        right_rows = right.members_M[right.starts_K[cell] :]
        right_units = placed(right.vectors.units(right_rows[right_begin:right_end], right_units_RD), self.device)
        least = float(self.cosine) - error(right_units_RD.shape[1])
        for begin in range(left_begin, left_end, _STRIP):
            end = min(begin + _STRIP, left_end)
            # Inside one set, members are compared with those at or after them.
            first = max(right_begin, begin) if self.within else right_begin
            left_units = placed(left.vectors.units(left_rows[begin:end], left_units_LD), self.device)
            row_C, column_C = products_at_least(left_units, right_units[first - right_begin :], least, scratch)
            yield self._decided(left, right, cell, left_rows[begin + row_C], right_rows[first + column_C])

    def _decided(self, left: Side, right: Side, cell: int, left_C: np.ndarray, right_C: np.ndarray) -> PairBlock:
        """Of the candidates in a cell, the pairs that meet there first and are near enough."""
        meets_C = _first_common(left.cells_Up, right.cells_Up, left_C, right_C) == cell
        if self.within:
            meets_C &= left_C < right_C
        left_P, right_P = left_C[meets_C], right_C[meets_C]
        is_near_P, cosine_P = at_least(self.cosine, left.vectors, right.vectors, left_P, right_P)
        return left_P[is_near_P], right_P[is_near_P], cosine_P[is_near_P].astype(np.float32)


def _by_cell(cells_Up: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """cells_Up, members_M and starts_K of a side."""
    order_M = np.argsort(cells_Up.ravel(), kind="stable")
    sizes_K = np.bincount(cells_Up.ravel(), minlength=cells)
    return cells_Up, order_M // cells_Up.shape[1], np.concatenate([[0], np.cumsum(sizes_K)])


def _jobs(left: Side, right: Side, within: bool, cosine: Fraction, device: str) -> Iterator[CosineJob]:
    """Rectangles in the order of cells, gathered until a job has enough to do."""
    assert 0 < cosine <= 1, f"a cosine lies above 0 and at most at 1, not at {cosine}"
    assert len(left.starts_K) == len(right.starts_K), "both sides have cells of the same centroids"
    width = left.vectors.bits_ND.shape[1]
    gathered: list[Rectangle] = []
    products = 0

    def job() -> CosineJob:
        return CosineJob(tuple(gathered), within, cosine, device, 2 * width * products / _FLOPS_PER_S)

    for rectangle in _rectangles(np.diff(left.starts_K), np.diff(right.starts_K), within, width):
        gathered.append(rectangle)
        products += (rectangle.left_end - rectangle.left_begin) * (rectangle.right_end - rectangle.right_begin)
        if products >= _PRODUCTS_PER_JOB:
            yield job()
            gathered, products = [], 0
    if gathered:
        yield job()


def _rectangles(left_sizes_K: np.ndarray, right_sizes_K: np.ndarray, within: bool, width: int) -> Iterator[Rectangle]:
    """Every cell cut into rectangles, of columns whose units take at most 16 MB."""
    columns = max(_STRIP, _NUMBERS_PER_TILE // width)
    for cell in np.flatnonzero(left_sizes_K * right_sizes_K).tolist():
        left_size, right_size = int(left_sizes_K[cell]), int(right_sizes_K[cell])
        for right_begin in range(0, right_size, columns):
            right_end = min(right_begin + columns, right_size)
            last = right_end if within else left_size
            rows = max(_STRIP, _PRODUCTS_PER_JOB // (right_end - right_begin))
            for left_begin in range(0, last, rows):
                yield Rectangle(cell, left_begin, min(left_begin + rows, last), right_begin, right_end)


@njit(cache=True, nogil=True)
def _first_common(left_cells_Up, right_cells_Vp, left_P, right_P):  # type: ignore[no-untyped-def]
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
