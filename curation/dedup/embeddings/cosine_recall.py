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
SAMPLED = 1000  # vectors whose pairs are counted


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


@dataclass(frozen=True)
class Sample:
    """Some vectors that are compared with all.

    `number_S` are their numbers among those that they are compared with: a vector makes no pair with itself. None
    where those are another set.
    """

    vectors: Vectors
    number_S: np.ndarray | None = None

    def pairs(
        self, others: Vectors, first: int, cosine: Fraction, device: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All pairs (sample_P, right_P) of the sample's vectors with others, of which the first has that number."""
        sides = VectorsByCell.in_one_cell(self.vectors), VectorsByCell.in_one_cell(others)
        for job in jobs_between(*sides, cosine, device):
            for sample_P, right_P, _ in job.pairs(sides[0].values + sides[1].values):
                if self.number_S is not None:
                    is_pair_P = self.number_S[sample_P] != first + right_P
                    sample_P, right_P = sample_P[is_pair_P], right_P[is_pair_P]
                if len(sample_P):
                    yield sample_P, right_P


def measured_recall(
    left: VectorsByCell, right: VectorsByCell | None, cosine: Fraction, sampled: int = SAMPLED, device: str = "cpu"
) -> Recall:
    """Compare the first `sampled` vectors with all of the right, or of the left itself for None.

    A pair is found if its vectors share a cell, so no join need have run. A pair inside the sample counts twice.
    """
    others = left if right is None else right
    rows_S = np.arange(len(left.vectors.norm_N))[:sampled]
    sample = Sample(left.vectors.taken(rows_S), rows_S if right is None else None)
    return recall_of_sample(sample, left.cells_Up[rows_S], others.vectors, others.cells_Up, 0, cosine, device)


def recall_of_sample(
    sample: Sample,
    cells_Sp: np.ndarray,
    others: Vectors,
    cells_Vp: np.ndarray,
    first: int,
    cosine: Fraction,
    device: str = "cpu",
) -> Recall:
    """Which pairs of a sample with some vectors, the first of which has that number, share a cell."""
    found, pairs = 0, 0
    for sample_P, right_P in sample.pairs(others, first, cosine, device):
        pairs += len(sample_P)
        found += int((first_common_cell(cells_Sp, cells_Vp, sample_P, right_P) >= 0).sum())
    return Recall(found, pairs, len(cells_Sp))


def cells_for_recall(
    vectors_UD: np.ndarray,
    others_VD: np.ndarray | None,
    centroids_KD: np.ndarray,
    cosine: Fraction,
    recall: float = 0.99,
    sampled: int = SAMPLED,
    device: str = "cpu",
) -> int:
    """The fewest cells per vector that find that share of the pairs of the last `sampled` vectors.

    At least `cells_per_vector`, and at most 32, which then find less: vectors that lie denser than the threshold are
    not told apart by cells.
    """
    left = Vectors.of(vectors_UD)
    rows_S = np.arange(len(vectors_UD))[-sampled:]
    sample = Sample(left.taken(rows_S), rows_S if others_VD is None else None)
    others = left if others_VD is None else Vectors.of(others_VD)
    pairs_needing = pairs_needing_cells(sample, others, 0, Vectors.of(centroids_KD), cosine, device)
    return fewest_cells(pairs_needing, recall, len(centroids_KD))


def pairs_needing_cells(
    sample: Sample, others: Vectors, first: int, centroids: Vectors, cosine: Fraction, device: str = "cpu"
) -> np.ndarray:
    """How many pairs of a sample with some vectors need 0, 1, 2 … cells per vector, or more than any, as int64."""
    most = min(MOST_CELLS_PER_VECTOR, len(centroids.norm_N))
    needing = np.zeros(most + 2, np.int64)
    for sample_P, right_P in sample.pairs(others, first, cosine, device):
        ends = (sample.vectors, sample_P), (others, right_P)
        cells = [nearest_cells(vectors.taken(rows_P), centroids, most, device)[0] for vectors, rows_P in ends]
        needing += np.bincount(_cells_needed(*cells), minlength=most + 2)
    return needing


def fewest_cells(pairs_needing: np.ndarray, recall: float, cells: int) -> int:
    """The fewest cells per vector, of so many, that find that share of the pairs."""
    most = len(pairs_needing) - 2
    enough = np.cumsum(pairs_needing)[: most + 1] >= recall * pairs_needing.sum()
    return max(int(np.argmax(enough)) if enough.any() else most, min(cells_per_vector(cells), most))


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
