"""How many tokens two sets share, and how many they must share for a Jaccard."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.texts.word_sets import WordSets


class Bounds(NamedTuple):
    """What a threshold asks for: of a size, the least size of a partner; of the sum of two sizes, the least overlap."""

    partner_S: np.ndarray
    overlap_S: np.ndarray


def bounds_of(collections: Sequence[WordSets], threshold: Fraction) -> Bounds:
    """The bounds for every size among these sets. `threshold` is above 0, up to 1; one exactly at it is within."""
    assert 0 < threshold <= 1, threshold
    largest = max(int(np.diff(sets.starts_U1).max(initial=0)) for sets in collections)
    overlap_S = [least_overlap(sizes, threshold) for sizes in range(2 * largest + 1)]
    return Bounds(partner_sizes(largest, threshold), np.array(overlap_S, np.int32))


def partner_sizes(largest: int, threshold: Fraction) -> np.ndarray:
    """The least size of a partner of a set of each size up to the largest, as int32 partner_S."""
    return np.array([ceil(threshold * size) for size in range(largest + 1)], np.int32)


def least_overlap(sizes: int, threshold: Fraction) -> int:
    """The least o with o / (sizes - o) >= threshold, for two sets of together `sizes` tokens."""
    return ceil(threshold * sizes / (1 + threshold))


@njit(cache=True, nogil=True)
def overlap(a, b, need):  # type: ignore[no-untyped-def]
    """How many tokens two ascending runs share; where that is less than `need`, any lower number."""
    i, j, shared = 0, 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
            if shared + len(a) - i < need:
                return shared
        else:
            j += 1
            if shared + len(b) - j < need:
                return shared
    return shared
