"""Exact joins of 64-bit codes by Hamming distance: sort by some blocks of bits, compare inside the runs.

N, M: rows; U, V: distinct codes; P: pairs. Moved codes are codes whose bits were permuted (curation/dedup/blocks.py):
sorting them by value sorts by key with the code beside it, and distances do not notice. A 256-bit join will need
rows of words here, and an order beside them; the tables and the rest stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from curation.dedup.blocks import Table, key_blocks, tables

MOST_DISTANCE = 31
_PAIRS_PER_BLOCK = 1 << 20

Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Distinct:
    """The distinct codes among N rows: sorted `codes_U`, and which rows hold each.

    `rows_N[starts_U[u]:starts_U[u] + counts_U[u]]` are the rows of code u, and `first_U[u]` the lowest of them.
    """

    codes_U: np.ndarray
    first_U: np.ndarray
    starts_U: np.ndarray
    counts_U: np.ndarray
    rows_N: np.ndarray

    @classmethod
    def of(cls, codes_N: np.ndarray) -> "Distinct":
        """Collapse equal codes. (np.unique is 35 times slower than a sort and a mask.)"""
        rows_N = np.argsort(codes_N)
        sorted_N = codes_N[rows_N]
        is_first_N = np.ones(len(codes_N), np.bool_)
        is_first_N[1:] = sorted_N[1:] != sorted_N[:-1]
        starts_U = np.flatnonzero(is_first_N)
        first_U = np.minimum.reduceat(rows_N, starts_U) if len(starts_U) else starts_U
        counts_U = np.diff(starts_U, append=len(codes_N))
        return cls(sorted_N[starts_U], first_U, starts_U, counts_U, rows_N)

    def repeats(self) -> Pairs:
        """(first row, row) for every row that is not the first of its code."""
        leaders_N = np.repeat(self.first_U, self.counts_U)
        is_repeat_N = self.rows_N != leaders_N
        return leaders_N[is_repeat_N], self.rows_N[is_repeat_N]


def pairs_within(codes_N: np.ndarray, distance: int) -> Pairs:
    """Pairs (left_P, right_P) of rows, left < right, whose uint64 codes differ in at most `distance` bits (0 to 31).

    Equal codes are collapsed: each further row of a code is paired with the first row that holds it, and with no
    other; the first rows of distinct codes are paired with each other exactly, each pair once.
    """
    return _concatenated(pair_blocks_within(codes_N, distance))


def pair_blocks_within(codes_N: np.ndarray, distance: int) -> Iterator[Pairs]:
    """The pairs of `pairs_within`, in blocks of bounded size, for who need not hold them all."""
    distinct = Distinct.of(_checked(codes_N, distance))
    yield distinct.repeats()
    if distance == 0:
        return
    for left_P, right_P in _meetings(distinct.codes_U, None, distance):
        a_P, b_P = distinct.first_U[left_P], distinct.first_U[right_P]
        yield np.minimum(a_P, b_P), np.maximum(a_P, b_P)


def pairs_between(codes_N: np.ndarray, others_M: np.ndarray, distance: int) -> Pairs:
    """Pairs (left_P, right_P): each row of `codes_N` with the rows of `others_M` within `distance` bits (0 to 31).

    Of the others that are equal to each other, only the first is named.
    """
    distinct, others = Distinct.of(_checked(codes_N, distance)), Distinct.of(_checked(others_M, distance))
    meetings_P = _concatenated(_meetings(distinct.codes_U, others.codes_U, distance))
    counts_P = distinct.counts_U[meetings_P[0]]
    ends_P = np.cumsum(counts_P)
    # Unroll each distinct code into its rows: starts of the runs, plus 0, 1, 2 … within each.
    within_run = np.arange(counts_P.sum()) - np.repeat(ends_P - counts_P, counts_P)
    left = distinct.rows_N[np.repeat(distinct.starts_U[meetings_P[0]], counts_P) + within_run]
    return left, np.repeat(others.first_U[meetings_P[1]], counts_P)


def distances(left_P: np.ndarray, right_P: np.ndarray) -> np.ndarray:
    """In how many bits the uint64 codes differ, pair by pair."""
    return np.bitwise_count(left_P ^ right_P).astype(np.int64)


def _checked(codes_N: np.ndarray, distance: int) -> np.ndarray:
    assert codes_N.dtype == np.uint64, f"codes are uint64, not {codes_N.dtype}"
    assert 0 <= distance <= MOST_DISTANCE, f"distance is 0 to {MOST_DISTANCE}, not {distance}"
    return codes_N


def _concatenated(blocks: Iterator[Pairs]) -> Pairs:
    """All blocks as one."""
    lefts, rights = zip((np.empty(0, np.int64),) * 2, *blocks, strict=True)
    return np.concatenate(lefts), np.concatenate(rights)


def _meetings(codes_U: np.ndarray, others_V: np.ndarray | None, distance: int) -> Iterator[Pairs]:
    """Positions of the pairs within `distance` between sorted distinct codes; without others, inside one set."""
    targets = codes_U if others_V is None else others_V
    if not len(codes_U) or not len(targets):
        return
    capacity = max(_PAIRS_PER_BLOCK, len(targets))
    found_left, found_right = np.empty(capacity, np.uint64), np.empty(capacity, np.uint64)
    for table in tables(distance, key_blocks(max(len(codes_U), len(targets)), distance)):
        left_U = np.sort(_moved(codes_U, table.source_B, table.target_B, table.mask_B))
        right_V = (
            left_U if others_V is None else np.sort(_moved(others_V, table.source_B, table.target_B, table.mask_B))
        )
        row = 0
        while row < len(left_U):
            row, found = _scan(
                left_U, right_V, others_V is None, table.key_mask, table.earlier_masks, distance, row,
                found_left, found_right,
            )  # fmt: skip
            if found:
                yield _positions(codes_U, found_left[:found], table), _positions(targets, found_right[:found], table)


def _positions(codes_U: np.ndarray, moved_P: np.ndarray, table: Table) -> np.ndarray:
    """Where in the sorted codes those lie whose bits were moved to `moved_P`."""
    return np.searchsorted(codes_U, _moved(moved_P, table.target_B, table.source_B, table.mask_B))


@intrinsic
def _popcount(typing_context, code):  # type: ignore[no-untyped-def]
    """Number of ones as int64: compared as uint64 with an int64, numba would go through float64, 14 times slower."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@njit(cache=True, nogil=True)
def _moved(codes_N, source_B, target_B, mask_B):  # type: ignore[no-untyped-def]
    """Codes with each block of bits moved from its source to its target."""
    moved_N = np.zeros_like(codes_N)
    for n in range(len(codes_N)):
        for b in range(len(source_B)):
            moved_N[n] |= ((codes_N[n] >> source_B[b]) & mask_B[b]) << target_B[b]
    return moved_N


@njit(cache=True, nogil=True)
def _scan(left_N, right_M, same, key_mask, earlier_masks, distance, start, found_left, found_right):  # type: ignore[no-untyped-def]
    """Write the pairs of one table, from row `start` of the left; return (next row, pairs written).

    Stops early where a row's pairs would not fit. Both sides are sorted moved codes; `same` says that they are one
    array, whose pairs are wanted once.
    """
    found, low, high = 0, 0, 0
    for n in range(start, len(left_N)):
        code = left_N[n]
        key = code & key_mask
        while low < len(right_M) and (right_M[low] & key_mask) < key:
            low += 1
        high = max(high, low)
        while high < len(right_M) and (right_M[high] & key_mask) == key:
            high += 1
        bucket = right_M[n + 1 : high] if same else right_M[low:high]
        hits = 0
        for m in range(len(bucket)):  # without a branch, so that it is vectorised; hits are rare
            hits += 1 if _popcount(code ^ bucket[m]) <= distance else 0
        if found + hits > len(found_left):
            return n, found
        if hits:
            for m in range(len(bucket)):
                difference = code ^ bucket[m]
                if _popcount(difference) <= distance:
                    meets_first = True
                    for mask in earlier_masks:
                        meets_first &= (difference & mask) != 0
                    if meets_first:
                        found_left[found], found_right[found] = code, bucket[m]
                        found += 1
    return len(left_N), found
