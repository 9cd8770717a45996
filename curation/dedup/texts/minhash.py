"""Joins of long texts by Jaccard through MinHash: which pairs to look at is a sample, what they share is exact.

A signature of `bands` × `rows` minima (rensa's R-MinHash) is cut into bands; two sets meet where all rows of a band
agree, which happens with probability 1 - (1 - J^rows)^bands at Jaccard J (Broder 1997; Leskovec et al., chapter 3).
Every pair that meets is verified by its tokens, so no false one is given; what is missed is what `recall` says, and:

A set is compared with the first `CENTRES` sets of its bucket only, in the order of their numbers. So a bucket of a
million sets costs 8 million comparisons and not 5e11. In a larger bucket two sets that both come behind the first are
compared only if another band puts them together. Where they are near the same centre, they still are one component;
`earlier` and `greedy` may keep one of them that the missing pair would have dropped.

U: distinct sets (curation/dedup/texts/word_sets.py); C: candidates; P: pairs.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

from curation.dedup.join import PairBlock, Values
from curation.dedup.texts.overlap import bounds_of, overlap
from curation.dedup.texts.word_sets import WordSets, mixed

CENTRES = 8
_CANDIDATES_PER_JOB = 1 << 18
_SETS_AT_ONCE = 10_000
_SECONDS_PER_WORD = 2e-9


@dataclass(frozen=True)
class Banding:
    """How signatures are made and cut: `bands` × `rows` minima, drawn by `seed`."""

    bands: int = 16
    rows: int = 8
    seed: int = 0

    def recall(self, jaccard: float) -> float:
        """The probability that two sets of that Jaccard meet in a band."""
        return 1 - (1 - jaccard**self.rows) ** self.bands


@dataclass(frozen=True)
class CandidatesJob:
    """The pairs among candidates `first` to `last`, without the last."""

    first: int
    last: int
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """One block of (left_P, right_P, overlap_P): the numbers of two sets, and how many tokens they share."""
        overlap_S, starts_U1, tokens_T, starts_V1, others_T, left_C, right_C = values
        left, right = left_C[self.first : self.last], right_C[self.first : self.last]
        overlap_C = _overlaps(starts_U1, tokens_T, starts_V1, others_T, left, right)
        sizes_C = starts_U1[left + 1] - starts_U1[left] + starts_V1[right + 1] - starts_V1[right]
        is_near_C = overlap_C >= overlap_S[sizes_C]
        yield left[is_near_C], right[is_near_C], overlap_C[is_near_C]


def self_join(sets: WordSets, threshold: Fraction, banding: Banding) -> tuple[Values, list[CandidatesJob]]:
    """What finds pairs of distinct sets, left < right, whose Jaccard is at least `threshold`, each once."""
    left_C, right_C = _candidates([_band_keys(sets, banding)])
    return _join(sets, sets, threshold, left_C, right_C)


def cross_join(
    sets: WordSets, others: WordSets, threshold: Fraction, banding: Banding
) -> tuple[Values, list[CandidatesJob]]:
    """The same for pairs of a set and one of the others; both must number tokens alike (`WordSets.of_texts`)."""
    left_C, right_C = _candidates([_band_keys(each, banding) for each in (sets, others)])
    return _join(sets, others, threshold, left_C, right_C)


def _join(
    sets: WordSets, others: WordSets, threshold: Fraction, left_C: np.ndarray, right_C: np.ndarray
) -> tuple[Values, list[CandidatesJob]]:
    overlap_S = bounds_of([sets, others], threshold).overlap_S
    edges = [*range(0, len(left_C), _CANDIDATES_PER_JOB), len(left_C)]
    words = (len(sets.tokens_T) / max(len(sets), 1)) + (len(others.tokens_T) / max(len(others), 1))
    jobs = [CandidatesJob(a, b, (b - a) * words * _SECONDS_PER_WORD) for a, b in itertools.pairwise(edges)]
    return (overlap_S, sets.starts_U1, sets.tokens_T, others.starts_U1, others.tokens_T, left_C, right_C), jobs


def _band_keys(sets: WordSets, banding: Banding) -> np.ndarray:
    """A key for each band and set, as uint64 keys_BU: equal minima have equal keys."""
    keys_BU = np.zeros((banding.bands, len(sets)), np.uint64)
    for first in range(0, len(sets), _SETS_AT_ONCE):
        some = slice(first, min(first + _SETS_AT_ONCE, len(sets)))
        minima_UBR = _signatures(sets, some, banding).reshape(-1, banding.bands, banding.rows)
        for row in range(banding.rows):
            keys_BU[:, some] = mixed(keys_BU[:, some], minima_UBR[:, :, row].T)
    return keys_BU


def _signatures(sets: WordSets, some: slice, banding: Banding) -> np.ndarray:
    """The minima of some sets, as uint64 (some, bands × rows). They hang on the values of tokens, not on numbers."""
    from rensa import RMinHash

    ends = sets.starts_U1[some.start : some.stop + 1]
    hashes_T = sets.hash_V[sets.tokens_T[ends[0] : ends[-1]]]
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes_T, (ends - ends[0]).astype(np.uint64), banding.bands * banding.rows, banding.seed
    )
    return np.array(matrix.to_rows(), np.uint64)


def _candidates(sides: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Who meets whom in some band, each pair once: (left_C, right_C) in ascending order."""
    packed_C = np.empty(0, np.int64)
    for keys in zip(*sides, strict=True):
        packed_C = np.sort(np.concatenate([packed_C, *_met(keys[0], keys[-1], len(sides) == 1)]))
        packed_C = packed_C[np.append(True, packed_C[1:] != packed_C[:-1])[: len(packed_C)]]
    return packed_C >> 32, packed_C & 0xFFFFFFFF


def _met(left_U: np.ndarray, right_V: np.ndarray, is_same: bool) -> Iterator[np.ndarray]:
    """Pairs of a set and one of the first of the other side's bucket, as left << 32 | right."""
    order_U, order_V = np.argsort(left_U, kind="stable"), np.argsort(right_V, kind="stable")
    left_U, right_V = left_U[order_U], right_V[order_V]
    first_U = np.searchsorted(right_V, left_U)
    end_U = np.arange(len(left_U)) if is_same else np.searchsorted(right_V, left_U, "right")
    for centre in range(CENTRES):
        meets_U = np.flatnonzero(first_U + centre < end_U)
        sets, centres = order_U[meets_U], order_V[first_U[meets_U] + centre]
        yield (centres << 32) | sets if is_same else (sets << 32) | centres


@njit(cache=True, nogil=True)
def _overlaps(starts_U1, tokens_T, starts_V1, others_T, left_C, right_C):  # type: ignore[no-untyped-def]
    """How many tokens each pair shares."""
    overlap_C = np.empty(len(left_C), np.int32)
    for c in range(len(left_C)):
        u, v = left_C[c], right_C[c]
        overlap_C[c] = overlap(tokens_T[starts_U1[u] : starts_U1[u + 1]], others_T[starts_V1[v] : starts_V1[v + 1]], 0)
    return overlap_C
