"""From hash codes and a rank to who survives: near duplicates inside one set, nearest neighbours in another.

N, M: rows; P: pairs.
"""

import numpy as np

from curation.dedup.distinct_codes import distinct, first_rows
from curation.dedup.exact import first_of_equal
from curation.dedup.hamming import jobs_between, pair_blocks_within
from curation.dedup.join import pairs_of
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
    (codes_U, group_N), (others_V, group_M) = distinct(codes_N), distinct(others_M)
    first_V = first_rows(group_M, len(others_V))
    values = (codes_U, np.zeros(len(codes_U), np.bool_), others_V, np.zeros(len(others_V), np.bool_))
    far = np.iinfo(np.int64).max
    best_U = np.full(len(codes_U), far, np.int64)
    most = max(len(others_M), 1)
    for left_P, right_P, distance_P in pairs_of(jobs_between(values, distance), values):
        # One number orders by distance, then by position.
        np.minimum.at(best_U, left_P, distance_P.astype(np.int64) * most + first_V[right_P])
    return np.where(best_U == far, -1, best_U % most)[group_N]
