"""From hash codes and a rank to who survives: near duplicates inside one set, nearest neighbours in another.

N, M: rows; P: pairs.
"""

import numpy as np

from curation.dedup.exact import first_of_equal
from curation.dedup.hamming import distances, pair_blocks_within, pairs_between
from curation.dedup.survivors import RULES, Rule


def leaders_within(codes_N: np.ndarray, distance: int, rule: Rule) -> np.ndarray:
    """For codes in rank order, the row that each row gives way to as `leader_N`; a row that is kept leads itself.

    Each further row of an equal code is only paired with the first. That suffices for components and earlier; by the
    greedy rule it gives way to what the first row gives way to, for it has the same neighbours.
    """
    rank_N = np.arange(len(codes_N))
    _, leader_N = RULES[rule](pair_blocks_within(codes_N, distance), rank_N)
    return leader_N[first_of_equal([codes_N], rank_N)] if rule == "greedy" else leader_N


def nearest_between(codes_N: np.ndarray, others_M: np.ndarray, distance: int) -> np.ndarray:
    """For each code the nearest of the others within `distance`, the first of equally near ones; -1 for none."""
    left_P, right_P = pairs_between(codes_N, others_M, distance)
    far = np.iinfo(np.int64).max
    best_N = np.full(len(codes_N), far, np.int64)
    # One number orders by distance, then by position.
    np.minimum.at(best_N, left_P, distances(codes_N[left_P], others_M[right_P]) * max(len(others_M), 1) + right_P)
    return np.where(best_N == far, -1, best_N % max(len(others_M), 1))
