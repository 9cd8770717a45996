"""Connected components by union-find, where the root of a component is its lowest member."""

from collections.abc import Iterable

import numpy as np
from numba import njit


def roots(edge_blocks: Iterable[tuple[np.ndarray, np.ndarray]], nodes: int) -> np.ndarray:
    """The lowest member of each node's component as `root_N`, for edges (left_P, right_P) that come in blocks."""
    parent_N = np.arange(nodes, dtype=np.int64)
    for left_P, right_P in edge_blocks:
        _join(parent_N, left_P, right_P)
    _flatten(parent_N)
    return parent_N


@njit(cache=True, nogil=True)
def _root(parent_N, node):  # type: ignore[no-untyped-def]
    while parent_N[node] != node:
        parent_N[node] = parent_N[parent_N[node]]
        node = parent_N[node]
    return node


@njit(cache=True, nogil=True)
def _join(parent_N, left_P, right_P):  # type: ignore[no-untyped-def]
    """Join the two ends of every edge; a parent is always lower than its child."""
    for p in range(len(left_P)):
        left, right = _root(parent_N, left_P[p]), _root(parent_N, right_P[p])
        if left < right:
            parent_N[right] = left
        elif right < left:
            parent_N[left] = right


@njit(cache=True, nogil=True)
def _flatten(parent_N):  # type: ignore[no-untyped-def]
    for node in range(len(parent_N)):
        parent_N[node] = parent_N[parent_N[node]]  # the parent is lower, so it is flat already
