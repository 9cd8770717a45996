"""Jobs that join the vectors of a group of cells, or of two tiles of a cell that is too large for one job.

L, R: vectors on the left and right; K: cells; G: groups; P: pairs. A job reads the vectors of its group and no others.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from curation.dedup.components import thinned
from curation.dedup.embeddings.cosine import FLOPS_PER_S, jobs_between, jobs_within
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell
from curation.dedup.exchange import rows_of
from curation.dedup.join import PairBlock, Values, pairs_of
from curation.dedup.tiles import Partitions, Slices, pairs_of_tiles


@dataclass(frozen=True)
class Wanted:
    """What is wanted: pairs of this cosine or more, of vectors in `cells` cells.

    With `forest`, of the pairs of a job only as many as connect what all of them connect.
    """

    cells: int
    cosine: Fraction
    forest: bool
    device: str


@dataclass(frozen=True)
class GroupJob:
    """The pairs whose first common cell is one of the group's: inside the left, or between left and right."""

    wanted: Wanted
    first_cell: int
    last_cell: int
    left: Slices  # of files as `Moved` names them
    right: Slices | None
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Blocks of left_P, right_P (numbers of the pool; left < right within one set) and cosine_P (float32)."""
        left, number_L = self._read(self.left)
        if self.right is None:
            number_R, shift = number_L, 0
            found = pairs_of(jobs_within(left, self.wanted.cosine, self.wanted.device), left.values)
        else:
            right, number_R = self._read(self.right)
            shift = len(number_L)
            jobs = jobs_between(left, right, self.wanted.cosine, self.wanted.device)
            found = pairs_of(jobs, left.values + right.values)
        for left_P, right_P, cosine_P in thinned(found, shift + len(number_R), shift) if self.wanted.forest else found:
            yield number_L[left_P], number_R[right_P], cosine_P

    def _read(self, slices: Slices) -> tuple[VectorsByCell, np.ndarray]:
        """The vectors by those of their cells that are in the group, and their numbers in the pool."""
        vectors_MD, number_M, cells_Mp = (
            np.concatenate([rows_of(moved[n], begin, end) for moved, begin, end in slices]) for n in range(3)
        )
        some = range(self.first_cell, self.last_cell)
        return VectorsByCell.of_some_cells(Vectors.of(vectors_MD), cells_Mp, self.wanted.cells, some), number_M


def group_jobs(
    wanted: Wanted, first_G: np.ndarray, sides: list[Partitions], most: int, products_K: np.ndarray, width: int
) -> Iterator[GroupJob]:
    """Jobs of at most `most` vectors each; `products_K` says how many pairs each cell compares."""
    for group, (first, last) in enumerate(itertools.pairwise([*first_G.tolist(), wanted.cells])):
        work = 2 * width * float(products_K[first:last].sum()) / FLOPS_PER_S
        tiles = pairs_of_tiles(sides, group, most)
        for left, right in tiles:
            yield GroupJob(wanted, first, last, left, right, work / len(tiles))
