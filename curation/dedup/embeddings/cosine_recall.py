"""What share of its pairs a join by cells finds, measured on samples; and in how many cells it must look.

U, V: distinct vectors on the left and right; K: cells; p: cells per vector; P: pairs; D: numbers per vector. Vectors
are numbered by hash, so the first and the last of them are random samples, and have nothing in common.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

from curation.dedup.embeddings.cells import nearest_cells
from curation.dedup.embeddings.cosine import jobs_between
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell, cells_per_vector, first_common_cell

MOST_CELLS_PER_VECTOR = 32


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
    left: VectorsByCell, right: VectorsByCell | None, cosine: Fraction, sampled: int = 1000, device: str = "cpu"
) -> Recall:
    """Compare the first `sampled` vectors with all of the right, or of the left itself for None.

    A pair is found if its vectors share a cell, so no join need have run. A pair inside the sample counts twice.
    """
    others = left if right is None else right
    sample = np.arange(len(left.vectors.norm_N))[:sampled]
    found, pairs = 0, 0
    right_vectors = None if right is None else right.vectors
    for left_P, right_P in _pairs_of_sample(left.vectors, right_vectors, sample, cosine, device):
        pairs += len(left_P)
        found += int((first_common_cell(left.cells_Up, others.cells_Up, left_P, right_P) >= 0).sum())
    return Recall(found, pairs, len(sample))


def cells_for_recall(
    vectors_UD: np.ndarray,
    others_VD: np.ndarray | None,
    centroids_KD: np.ndarray,
    cosine: Fraction,
    recall: float = 0.99,
    sampled: int = 1000,
    device: str = "cpu",
) -> int:
    """The fewest cells per vector that find that share of the pairs of the last `sampled` vectors.

    At least `cells_per_vector`, and at most 32, which then find less: vectors that lie denser than the threshold are
    not told apart by cells.
    """
    most = min(MOST_CELLS_PER_VECTOR, len(centroids_KD))
    left, centroids = Vectors.of(vectors_UD), Vectors.of(centroids_KD)
    right = None if others_VD is None else Vectors.of(others_VD)
    needing = np.zeros(most + 2, np.int64)  # how many pairs need 1, 2 … cells, or more than any
    for left_P, right_P in _pairs_of_sample(left, right, np.arange(len(vectors_UD))[-sampled:], cosine, device):
        ends = (left, left_P), (left if right is None else right, right_P)
        cells = [nearest_cells(vectors.taken(rows_P), centroids, most, device)[0] for vectors, rows_P in ends]
        needing += np.bincount(_cells_needed(*cells), minlength=most + 2)
    enough = np.cumsum(needing)[: most + 1] >= recall * needing.sum()
    return max(int(np.argmax(enough)) if enough.any() else most, min(cells_per_vector(len(centroids_KD)), most))


def _pairs_of_sample(
    left: Vectors, right: Vectors | None, sample: np.ndarray, cosine: Fraction, device: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs (left_P, right_P) of the sample's vectors with others; without a right, with those of the left."""
    sides = VectorsByCell.in_one_cell(left.taken(sample)), VectorsByCell.in_one_cell(left if right is None else right)
    for job in jobs_between(*sides, cosine, device):
        for sample_P, right_P, _ in job.pairs(sides[0].values + sides[1].values):
            left_P = sample[sample_P]
            is_pair_P = np.full(len(left_P), right is not None) | (left_P != right_P)
            if is_pair_P.any():
                yield left_P[is_pair_P], right_P[is_pair_P]


@njit(cache=True, nogil=True)
def _cells_needed(left_cells_Pp, right_cells_Pp):  # type: ignore[no-untyped-def]
    """Within how many nearest cells both vectors of a pair share one; one more than there are if they share none."""
    pairs, most = left_cells_Pp.shape
    needed_P = np.full(pairs, most + 1, np.int64)
    for n in range(pairs):
        for a in range(most):
            for b in range(most):
                if left_cells_Pp[n, a] == right_cells_Pp[n, b]:
                    needed_P[n] = min(needed_P[n], max(a, b) + 1)
    return needed_P
