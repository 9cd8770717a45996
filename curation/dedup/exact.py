"""Groups of equal values and the first row of each, by rank."""

from collections.abc import Sequence

import numpy as np


def first_of_equal(columns: Sequence[np.ndarray], rank_N: np.ndarray) -> np.ndarray:
    """For each of N rows, the row that ranks first among those with equal values in all columns, as `leader_N`."""
    order_N = np.lexsort((rank_N, *columns))
    starts_group_N = np.zeros(len(rank_N), np.bool_)
    starts_group_N[:1] = True
    for column_N in columns:
        sorted_N = column_N[order_N]
        starts_group_N[1:] |= sorted_N[1:] != sorted_N[:-1]
    leader_N = np.empty(len(rank_N), np.int64)
    starts_G = np.flatnonzero(starts_group_N)
    leader_N[order_N] = np.repeat(order_N[starts_G], np.diff(starts_G, append=len(rank_N)))
    return leader_N
