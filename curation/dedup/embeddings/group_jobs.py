"""Jobs that join the vectors of a group of cells, or of two tiles of a cell that is too large for one job.

L, R: vectors on the left and right; K: cells; G: groups; F: files that hold groups; P: pairs. A job reads the vectors
of its group and no others. A cell that is too large is a group of its own, cut into tiles of consecutive vectors: the
pairs of two tiles need only those two, so no job is larger than others, however the vectors lie.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from curation.dedup.components import Forest
from curation.dedup.embeddings.cosine import FLOPS_PER_S, jobs_between, jobs_within
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell
from curation.dedup.embeddings.vectors_by_group import Moved
from curation.dedup.exchange import rows_of
from curation.dedup.join import PairBlock, Values, pairs_of

Slices = tuple[tuple[Moved, int, int], ...]  # rows `begin` to `end` of files


@dataclass(frozen=True)
class Search:
    """What is wanted: pairs of this cosine or more, in `cells` cells; of one set (`within`), or between two.

    With `forest`, of the pairs of a job only as many as connect what all of them connect.
    """

    cells: int
    cosine: Fraction
    within: bool
    forest: bool
    device: str


@dataclass(frozen=True)
class MovedVectors:
    """The files of one side: group g has `counts_FG[f, g]` vectors in file f."""

    files: tuple[Moved, ...]
    counts_FG: np.ndarray

    @cached_property
    def _begins_FG(self) -> np.ndarray:
        return np.cumsum(self.counts_FG, axis=1) - self.counts_FG

    def tiles(self, group: int, most: int) -> list[Slices]:
        """The vectors of a group in pieces of at most so many, in the order of their numbers."""
        begins_F = self._begins_FG[:, group]
        places_F1 = np.concatenate([[0], np.cumsum(self.counts_FG[:, group])])
        return [
            self._slices(begins_F, places_F1, start, min(start + most, int(places_F1[-1])))
            for start in range(0, int(places_F1[-1]), most)
        ]

    def _slices(self, begins_F: np.ndarray, places_F1: np.ndarray, start: int, stop: int) -> Slices:
        found = []
        for f in np.flatnonzero((places_F1[1:] > start) & (places_F1[:-1] < stop)).tolist():
            low, high = max(start, int(places_F1[f])), min(stop, int(places_F1[f + 1]))
            shift = int(begins_F[f] - places_F1[f])
            found.append((self.files[f], low + shift, high + shift))
        return tuple(found)


@dataclass(frozen=True)
class GroupJob:
    """The pairs whose first common cell is one of the group's: inside the left, or between left and right."""

    search: Search
    first_cell: int
    last_cell: int
    left: Slices
    right: Slices | None
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Blocks of left_P, right_P (numbers of the pool; left < right within one set) and cosine_P (float32)."""
        left, number_L = self._read(self.left)
        if self.right is None:
            jobs = jobs_within(left, self.search.cosine, self.search.device)
            number_R, values = number_L, left.values
        else:
            right, number_R = self._read(self.right)
            jobs = jobs_between(left, right, self.search.cosine, self.search.device)
            values = left.values + right.values
        shift = 0 if self.right is None else len(number_L)
        forest = Forest(shift + len(number_R)) if self.search.forest else None
        for left_P, right_P, cosine_P in pairs_of(jobs, values):
            if forest is not None:
                joins_P = forest.joining(left_P, right_P + shift)
                left_P, right_P, cosine_P = left_P[joins_P], right_P[joins_P], cosine_P[joins_P]
            yield number_L[left_P], number_R[right_P], cosine_P

    def _read(self, slices: Slices) -> tuple[VectorsByCell, np.ndarray]:
        """The vectors by those of their cells that are in the group, and their numbers in the pool."""
        vectors_MD, number_M, cells_Mp = (
            np.concatenate([rows_of(moved[n], begin, end) for moved, begin, end in slices]) for n in range(3)
        )
        some = range(self.first_cell, self.last_cell)
        return VectorsByCell.of_some_cells(Vectors.of(vectors_MD), cells_Mp, self.search.cells, some), number_M


def group_jobs(
    search: Search,
    first_G: np.ndarray,
    left: MovedVectors,
    right: MovedVectors | None,
    most: int,
    products_K: np.ndarray,
    width: int,
) -> Iterator[GroupJob]:
    """Jobs of at most `most` vectors each; `products_K` says how many pairs each cell compares."""
    edges_G1 = [*first_G.tolist(), search.cells]
    for group, (first, last) in enumerate(itertools.pairwise(edges_G1)):
        work = 2 * width * float(products_K[first:last].sum()) / FLOPS_PER_S
        sides = [side for side in (left, right) if side is not None]
        whole = sum(int(side.counts_FG[:, group].sum()) for side in sides) <= most
        tiles = [side.tiles(group, most if whole else max(most // 2, 1)) for side in sides]
        pairs = list(_pairs_of_tiles(tiles))
        for one, other in pairs:
            yield GroupJob(search, first, last, one, other, work / len(pairs))


def _pairs_of_tiles(tiles: list[list[Slices]]) -> Iterator[tuple[Slices, Slices | None]]:
    """Which tiles are compared: each with itself (None) and all after it, or with all of the other side."""
    if len(tiles) == 2:
        yield from itertools.product(*tiles)
        return
    for number, tile in enumerate(tiles[0]):
        yield tile, None
        yield from ((tile, after) for after in tiles[0][number + 1 :])
