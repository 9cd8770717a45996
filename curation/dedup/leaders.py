"""From pairs of distinct values to rows: who gives way to whom inside one set, and who is nearest in another.

N, M: rows; U, V: distinct values; P: pairs. `group_N` is each row's distinct value, -1 where it has none.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from curation.dedup.join import PairBlock
from curation.dedup.survivors import RULES, Rule

NearBlock = tuple[np.ndarray, np.ndarray, np.ndarray]  # left_P, right_P, and how far apart: less is nearer


def leaders(group_N: np.ndarray, pairs: Iterable[PairBlock], rank_N: np.ndarray, rule: Rule) -> np.ndarray:
    """The row that each row gives way to as `leader_N`; a row that is kept, or has no value, leads itself.

    `pairs` join distinct values. Each further row of a value is joined with its first row only. That suffices for
    components and earlier; by the greedy rule it gives way to what the first row gives way to, for it has the same
    neighbours.
    """
    first_U = first_by_rank(group_N, rank_N)
    _, leader_N = RULES[rule](_edges(group_N, first_U, pairs), rank_N)
    if rule == "greedy":
        has_value_N = group_N >= 0
        leader_N[has_value_N] = leader_N[first_U[group_N[has_value_N]]]
    return leader_N


def first_by_rank(group_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
    """The row of each distinct value that ranks first, as `first_U`; every number below the highest must occur."""
    rows_M = np.argsort(rank_N)[::-1]
    rows_M = rows_M[group_N[rows_M] >= 0]
    first_U = np.zeros(int(group_N.max(initial=-1)) + 1, np.int64)
    first_U[group_N[rows_M]] = rows_M  # of several rows the last one written stays: the first by rank
    return first_U


def nearest(blocks: Iterable[NearBlock], groups: int) -> np.ndarray:
    """For each of U values the number of the nearest of the others, the lowest of equally near ones; -1 for none."""
    distance_U = np.full(groups, np.inf)
    other_U = np.full(groups, -1, np.int64)
    for left_P, right_P, distance_P in blocks:
        order_P = np.lexsort((right_P, distance_P, left_P))
        left_P, right_P, distance_P = left_P[order_P], right_P[order_P], distance_P[order_P]
        first = np.flatnonzero(np.append(True, left_P[1:] != left_P[:-1])[: len(left_P)])
        left_P, right_P, distance_P = left_P[first], right_P[first], distance_P[first]
        is_nearer_P = (distance_P < distance_U[left_P]) | (
            (distance_P == distance_U[left_P]) & (right_P < other_U[left_P])
        )
        distance_U[left_P[is_nearer_P]] = distance_P[is_nearer_P]
        other_U[left_P[is_nearer_P]] = right_P[is_nearer_P]
    return other_U


def _edges(
    group_N: np.ndarray, first_U: np.ndarray, pairs: Iterable[PairBlock]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Edges between rows: a star around the first row of each value, and the pairs between first rows."""
    further = np.flatnonzero(group_N >= 0)
    further = further[first_U[group_N[further]] != further]
    yield first_U[group_N[further]], further
    for left_P, right_P, _ in pairs:
        yield first_U[left_P], first_U[right_P]
