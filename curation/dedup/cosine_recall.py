"""What share of its pairs a join by cells finds, measured on a sample.

U, V: distinct vectors on the left and right; S: those of the sample; P: pairs.
"""

from dataclasses import dataclass
from fractions import Fraction

from curation.dedup.cosine import jobs_between
from curation.dedup.exact_cosine import Vectors
from curation.dedup.vectors_by_cell import VectorsByCell, first_common_cell


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
    """Compare the first `sampled` vectors (numbered by hash) with all of the right, or of the left itself for None.

    A pair is found if its vectors share a cell, so no join need have run. A pair inside the sample counts twice.
    """
    others = left if right is None else right
    sample = Vectors(left.vectors.bits_ND[:sampled], left.vectors.norm_N[:sampled])
    sides = VectorsByCell.in_one_cell(sample), VectorsByCell.in_one_cell(others.vectors)
    found, pairs = 0, 0
    for job in jobs_between(*sides, cosine, device):
        for left_P, right_P, _ in job.pairs(sides[0].values + sides[1].values):
            if right is None:
                is_pair_P = left_P != right_P
                left_P, right_P = left_P[is_pair_P], right_P[is_pair_P]
            pairs += len(left_P)
            found += int((first_common_cell(left.cells_Up, others.cells_Up, left_P, right_P) >= 0).sum())
    return Recall(found, pairs, len(sample.norm_N))
