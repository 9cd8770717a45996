"""Joins of float16 vectors by cosine: products inside cells of a spherical k-means find candidates, integers decide.

U, V: distinct vectors on the left and right; K: cells; p: cells per vector; P: pairs; D: numbers per vector. A pair
is found if its two vectors share one of the p cells nearest to each, so the pairs are a pure function of (values,
centroids), and all of them where there is one cell. What share is found otherwise is measured, not promised.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from curation.dedup.embeddings.exact_cosine import at_least
from curation.dedup.embeddings.products import at_least as products_at_least
from curation.dedup.embeddings.products import error, here, placed
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell, first_common_cell
from curation.dedup.join import Job, PairBlock, Values

_PRODUCTS_PER_JOB = 1 << 23  # if all of them were pairs, they would take 170 MB
_NUMBERS_PER_TILE = 1 << 22  # 16 MB of float32
_STRIP = 256
FLOPS_PER_S = 1e11  # of one core; only the order of jobs hangs on it


def jobs_within(vectors: VectorsByCell, cosine: Fraction, device: str = "cpu") -> list[Job]:
    """Jobs over `vectors.values` that find the pairs of vectors whose cosine is `cosine` (above 0) or more, each once.

    Pairs come as left_P < right_P (int64 numbers of vectors) and cosine_P (float32). Products are taken on a torch
    device, such as `cuda`, which changes no pair.
    """
    return list(_jobs(vectors, vectors, True, cosine, device))


def jobs_between(left: VectorsByCell, right: VectorsByCell, cosine: Fraction, device: str = "cpu") -> list[Job]:
    """Jobs over `left.values + right.values` that find the pairs of a vector on the left and one on the right.

    As in `jobs_within`; both sides were put into cells of the same centroids.
    """
    return list(_jobs(left, right, False, cosine, device))


class Rectangle(NamedTuple):
    """A part of one cell: members left_begin to left_end of it on the left, with right_begin to right_end."""

    cell: int
    left_begin: int
    left_end: int
    right_begin: int
    right_end: int


class _Memory(NamedTuple):
    """What a job writes to again and again: unit vectors of both sides, and their products; where these are taken."""

    left_units_LD: np.ndarray
    right_units_RD: np.ndarray
    products: np.ndarray
    device: str


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
        device = here(self.device)
        left = VectorsByCell.from_values(values[:5])
        right = left if self.within else VectorsByCell.from_values(values[5:])
        width = left.vectors.bits_ND.shape[1]
        widest = max(rectangle.right_end - rectangle.right_begin for rectangle in self.rectangles)
        memory = _Memory(
            np.empty((_STRIP, width), np.float32),
            np.empty((widest, width), np.float32),
            np.empty(_STRIP * widest if device == "cpu" else 0, np.float32),
            device,
        )
        for rectangle in self.rectangles:
            yield from self._pairs_in(rectangle, left, right, memory)

    def _pairs_in(
        self, rectangle: Rectangle, left: VectorsByCell, right: VectorsByCell, memory: _Memory
    ) -> Iterator[PairBlock]:
        """The pairs in one rectangle."""
        cell, left_begin, left_end, right_begin, right_end = rectangle
        left_rows = left.members_M[left.starts_K[cell] :]
        right_rows = right.members_M[right.starts_K[cell] :]
        right_units = placed(
            right.vectors.units(right_rows[right_begin:right_end], memory.right_units_RD), memory.device
        )
        least = float(self.cosine) - error(memory.right_units_RD.shape[1])
        for begin in range(left_begin, left_end, _STRIP):
            end = min(begin + _STRIP, left_end)
            # Inside one set, members are compared with those at or after them.
            first = max(right_begin, begin) if self.within else right_begin
            left_units = placed(left.vectors.units(left_rows[begin:end], memory.left_units_LD), memory.device)
            row_C, column_C = products_at_least(left_units, right_units[first - right_begin :], least, memory.products)
            if len(row_C):
                yield self._decided(left, right, cell, left_rows[begin + row_C], right_rows[first + column_C])

    def _decided(
        self, left: VectorsByCell, right: VectorsByCell, cell: int, left_C: np.ndarray, right_C: np.ndarray
    ) -> PairBlock:
        """Of the candidates in a cell, the pairs that meet there first and are near enough."""
        meets_C = first_common_cell(left.cells_Up, right.cells_Up, left_C, right_C) == cell
        if self.within:
            meets_C &= left_C < right_C
        left_P, right_P = left_C[meets_C], right_C[meets_C]
        is_near_P, cosine_P = at_least(self.cosine, left.vectors, right.vectors, left_P, right_P)
        return left_P[is_near_P], right_P[is_near_P], cosine_P[is_near_P].astype(np.float32)


def _jobs(
    left: VectorsByCell, right: VectorsByCell, within: bool, cosine: Fraction, device: str
) -> Iterator[CosineJob]:
    """Rectangles in the order of cells, gathered until a job has enough to do."""
    assert 0 < cosine <= 1, f"a cosine lies above 0 and at most at 1, not at {cosine}"
    assert len(left.starts_K) == len(right.starts_K), "both sides have cells of the same centroids"
    width = left.vectors.bits_ND.shape[1]
    gathered: list[Rectangle] = []
    products = 0

    def job() -> CosineJob:
        return CosineJob(tuple(gathered), within, cosine, device, 2 * width * products / FLOPS_PER_S)

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
