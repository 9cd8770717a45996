"""Connected components by union-find, where the root of a component is its lowest member.

N: nodes; P: pairs (edges). The algorithm is Rem's (Dijkstra 1976; Patwary, Blair and Manne 2010): both ends climb at
once, and each step hangs a node lower. A parent is never above its child, so a root is the lowest node of its tree.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from curation.dedup.join import PairBlock

EdgeBlock = tuple[np.ndarray, np.ndarray]  # left_P, right_P: the nodes that each edge joins
LARGE_SHARE = 0.01  # of the pool: a component that holds more is hardly one picture


def roots(edge_blocks: Iterable[EdgeBlock], nodes: int) -> np.ndarray:
    """The lowest member of each node's component as `root_N` (int32 where that holds every node, else int64)."""
    parent_N = _singles(nodes)
    for left_P, right_P in edge_blocks:
        _join(parent_N, left_P, right_P, np.empty(len(left_P), np.bool_))
    _flatten(parent_N)
    return parent_N


def spanning_forest(edge_blocks: Iterable[EdgeBlock], nodes: int) -> Iterator[EdgeBlock]:
    """Of each block the edges that join what no edge before them joins: at most nodes - 1 in all.

    They connect what all edges connect, so jobs pass on the forest of their own edges, and the forest of several
    forests is one of all their edges.
    """
    forest = Forest(nodes)
    for left_P, right_P in edge_blocks:
        joins_P = forest.joining(left_P, right_P)
        yield left_P[joins_P], right_P[joins_P]


class Forest:
    """What is connected so far, of so many nodes: edges come block by block."""

    def __init__(self, nodes: int) -> None:
        self._parent_N = _singles(nodes)

    def joining(self, left_P: np.ndarray, right_P: np.ndarray) -> np.ndarray:
        """Take in the edges of a block; which of them join what no edge before them joins, as bool_P."""
        joins_P = np.empty(len(left_P), np.bool_)
        _join(self._parent_N, left_P, right_P, joins_P)
        return joins_P


def thinned(pairs: Iterable[PairBlock], nodes: int, shift: int) -> Iterator[PairBlock]:
    """Of pairs with what was measured the spanning forest; the right's numbers count from `shift` on as nodes."""
    forest = Forest(nodes)
    for left_P, right_P, measure_P in pairs:
        joins_P = forest.joining(left_P, right_P + shift)
        yield left_P[joins_P], right_P[joins_P], measure_P[joins_P]


@dataclass(frozen=True)
class ComponentSizes:
    """How large the components are.

    `components_by_size` maps 1, 2, 4, 8 … to the number of components of that size up to the next; `largest` holds
    (size, root) of the largest ones, of equal ones the lower root first.
    """

    pool_rows: int
    components_by_size: dict[int, int]
    largest: tuple[tuple[int, int], ...]

    @property
    def warning(self) -> str:
        """What to tell where one component holds more than 1 % of the pool; else empty."""
        size = self.largest[0][0] if self.largest else 0
        if size <= LARGE_SHARE * self.pool_rows or size == 1:
            return ""
        return (
            f"one component holds {size:,} of {self.pool_rows:,} rows ({100 * size / self.pool_rows:.1f} %), of which "
            "one is kept; chains may have joined rows that are not alike: take a smaller radius, or "
            "`survivors: greedy`, which keeps a row that no kept row is near"
        )


def component_sizes(root_N: np.ndarray, pool_rows: int, most: int = 10) -> ComponentSizes:
    """The sizes of the components with these roots in a pool of so many rows, `most` of the largest by name."""
    size_N = np.bincount(root_N, minlength=len(root_N))
    roots_C = np.flatnonzero(size_N)
    size_C = size_N[roots_C]
    bins, counts = np.unique(np.frexp(size_C)[1] - 1, return_counts=True)
    by_size = {1 << int(bin_): int(count) for bin_, count in zip(bins, counts, strict=True)}
    first = np.argsort(-size_C, kind="stable")[:most]
    largest = tuple(zip(size_C[first].tolist(), roots_C[first].tolist(), strict=True))
    return ComponentSizes(pool_rows, by_size, largest)


def _singles(nodes: int) -> np.ndarray:
    """Every node its own parent, in half the memory where that will do: most of the time goes to cache misses."""
    return np.arange(nodes, dtype=np.int32 if nodes < 2**31 else np.int64)


@njit(cache=True, nogil=True)
def _join(parent_N, left_P, right_P, joins_P):  # type: ignore[no-untyped-def]
    """Join the ends of every edge; `joins_P` becomes whether they were apart before."""
    for p in range(len(left_P)):
        left, right = np.int64(left_P[p]), np.int64(right_P[p])
        above_left, above_right = parent_N[left], parent_N[right]
        joins_P[p] = False
        while above_left != above_right:
            if above_left < above_right:
                left, right, above_left, above_right = right, left, above_right, above_left
            parent_N[left] = above_right
            if left == above_left:
                joins_P[p] = True
                break
            left = np.int64(above_left)
            above_left = parent_N[left]


@njit(cache=True, nogil=True)
def _flatten(parent_N):  # type: ignore[no-untyped-def]
    for node in range(len(parent_N)):
        parent_N[node] = parent_N[parent_N[node]]  # the parent is lower, so it is flat already
