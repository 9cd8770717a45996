"""Who survives among near duplicates: three named rules, each a function of edges and rank only.

For one graph and one rank, kept(components) ⊆ kept(earlier) ⊆ kept(greedy). What is kept never holds an edge, so
each rule, run again over what it kept, drops nothing.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numba import njit

from curation.dedup.components import roots

Edges = Iterable[tuple[np.ndarray, np.ndarray]]  # blocks of (left_P, right_P): row numbers
Survivors = tuple[np.ndarray, np.ndarray]  # kept_N (bool), leader_N (row number; a kept row leads itself)
Rule = Literal["components", "earlier", "greedy"]


def components(edges: Edges, rank_N: np.ndarray) -> Survivors:
    """Keep the first row of each connected component; it leads the others."""
    order_N = _order(rank_N)
    root_N = roots(_ranked(edges, rank_N), len(rank_N))
    return _unranked(root_N == np.arange(len(rank_N)), root_N, order_N)


def earlier(edges: Edges, rank_N: np.ndarray) -> Survivors:
    """Drop a row if any neighbour ranks before it (SemDeDup); the first row of its component leads it.

    The neighbour that ranks before it may itself be dropped; the component's first row never is.
    """
    order_N = _order(rank_N)
    kept_N = np.ones(len(rank_N), np.bool_)

    def marking() -> Edges:
        for left_P, right_P in _ranked(edges, rank_N):
            kept_N[np.maximum(left_P, right_P)] = False
            yield left_P, right_P

    root_N = roots(marking(), len(rank_N))
    return _unranked(kept_N, np.where(kept_N, np.arange(len(rank_N)), root_N), order_N)


def greedy(edges: Edges, rank_N: np.ndarray) -> Survivors:
    """Walk in rank order and keep a row if no neighbour is kept; its first kept neighbour leads any other."""
    order_N = _order(rank_N)
    empty = np.empty(0, _node_type(rank_N))
    blocks = [(empty, empty)]
    for left_P, right_P in _ranked(edges, rank_N):
        low_P, high_P = np.minimum(left_P, right_P), np.maximum(left_P, right_P)
        blocks.append((low_P.astype(empty.dtype), high_P.astype(empty.dtype)))
    low_P, high_P = (np.concatenate(side) for side in zip(*blocks, strict=True))
    del blocks
    leader_N = _walk(low_P, high_P, len(rank_N))
    return _unranked(leader_N == np.arange(len(rank_N)), leader_N, order_N)


RULES: dict[Rule, Callable[[Edges, np.ndarray], Survivors]] = {
    "components": components,
    "earlier": earlier,
    "greedy": greedy,
}


def _order(rank_N: np.ndarray) -> np.ndarray:
    """The rows in rank order; ranks are 0 to N-1, each once."""
    order_N = np.full(len(rank_N), -1, np.int64)
    order_N[rank_N] = np.arange(len(rank_N))
    assert (order_N >= 0).all(), "a rank is missing"
    return order_N


def _node_type(rank_N: np.ndarray) -> type[np.signedinteger]:
    """The smaller type that holds a rank: of edges there may be many."""
    return np.int32 if len(rank_N) < 2**31 else np.int64


def _ranked(edges: Edges, rank_N: np.ndarray) -> Edges:
    """Edges between ranks instead of row numbers."""
    for left_P, right_P in edges:
        yield rank_N[left_P], rank_N[right_P]


def _unranked(kept_N: np.ndarray, leader_N: np.ndarray, order_N: np.ndarray) -> Survivors:
    """Kept and leaders by row number, from those by rank."""
    kept, leader = np.empty_like(kept_N), np.empty_like(order_N)
    kept[order_N], leader[order_N] = kept_N, order_N[leader_N]
    return kept, leader


@njit(cache=True, nogil=True)
def _walk(low_P, high_P, nodes):  # type: ignore[no-untyped-def]
    """Leaders by rank: the lowest kept neighbour before it, or itself."""
    starts = np.zeros(nodes + 1, np.int64)
    for p in range(len(high_P)):
        starts[high_P[p] + 1] += 1
    starts = np.cumsum(starts)
    ends = starts[:-1].copy()
    before_P = np.empty_like(low_P)
    for p in range(len(high_P)):
        before_P[ends[high_P[p]]] = low_P[p]
        ends[high_P[p]] += 1
    leader_N = np.arange(nodes)
    for node in range(nodes):
        for neighbour in before_P[starts[node] : starts[node + 1]]:
            if leader_N[neighbour] == neighbour:
                leader_N[node] = min(leader_N[node], neighbour)
    return leader_N
