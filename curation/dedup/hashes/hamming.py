"""Exact joins of hash codes of 64 or 256 bits by Hamming distance, as jobs that do not depend on each other.

N, M: rows; U, V: distinct codes; W: words of 64 bits in a code, 1 or 4; P: pairs. Codes are uint64 of shape (U,) or
(U, W). The values of a self-join are (codes_U, exact_only_U), those of a join with another set (codes_U, exact_only_U,
others_V, exact_only_V): a code that is exact-only has no neighbours but its equal (low_entropy.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.hashes.blocks import Table, all_pairs, bits_in, key_blocks, work_s
from curation.dedup.hashes.buckets import mixed
from curation.dedup.hashes.comparing import Room
from curation.dedup.hashes.distinct_codes import as_words
from curation.dedup.hashes.eight_codes import LANES
from curation.dedup.hashes.meeting import Codes, compare_all, meet, room
from curation.dedup.join import Job, PairBlock, Values

MOST_DISTANCE = 31
_MOST_ROWS_OF_JOB = 1 << 24
_LITTLE_LESS = 0.75
_PAIRS_OF_EQUAL = 1 << 20


class Cut(NamedTuple):
    """What blocks were cut from: so many codes, which differ in so many bits."""

    rows: int
    bits: int


@dataclass(frozen=True)
class TableJob:
    """The pairs that meet in one table, of the codes whose key hashes into one of `shares` shares.

    The table of all pairs has no key: there a share is some of the codes, compared with all.
    """

    table: Table
    distance: int
    share: int
    shares: int
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Its pairs (left_P, right_P, distance_P uint8) of positions; left < right in a self-join."""
        keyed = bits_in(self.table.key_W) > 0
        share, shares = (self.share, self.shares) if keyed else (0, 1)
        sides = [
            _taken(codes_N, exact_only_N, self.table.key_W, share, shares)
            for codes_N, exact_only_N in zip(values[::2], values[1::2], strict=True)
        ]
        yield from table_pairs(self.table, sides, self.distance, self.share, self.shares)


@dataclass(frozen=True)
class EqualJob:
    """The equal codes of two sets; `among_exact_only` leaves out those that tables find."""

    among_exact_only: bool
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Its pairs, whose distance is 0."""
        codes_U, exact_only_U, others_V, exact_only_V = values
        left_P, right_P = _equal(as_words(codes_U), as_words(others_V))
        if self.among_exact_only:
            wanted_P = exact_only_U[left_P] | exact_only_V[right_P]
            left_P, right_P = left_P[wanted_P], right_P[wanted_P]
        for start in range(0, len(left_P), _PAIRS_OF_EQUAL):
            block = slice(start, start + _PAIRS_OF_EQUAL)
            yield left_P[block], right_P[block], np.zeros(len(left_P[block]), np.uint8)


def jobs_within(values: Values, distance: int, shares: int = 1) -> list[Job]:
    """Jobs that find the pairs of distinct codes within `distance` bits (0 to 31), each pair once.

    A table is cut into `shares` jobs, and into more where a job would hold more than 16 million codes.
    """
    assert len(values) == 2, "a self-join has codes and which of them are exact-only"
    return [] if distance == 0 else jobs_of_tables(tables_within(values, distance), values, distance, shares)


def jobs_between(values: Values, distance: int, shares: int = 1) -> list[Job]:
    """Jobs that find the pairs of a code and a code of another set within `distance` bits (0 to 31), each pair once.

    Shares as for `jobs_within`.
    """
    assert len(values) == 4, "a join has codes, which of them are exact-only, other codes, which of those are"
    if distance == 0:
        return [EqualJob(among_exact_only=False, work=equal_s(values))]
    return jobs_of_tables(tables_within(values, distance), values, distance, shares)


def jobs_of_tables(tables: list[Table], values: Values, distance: int, shares: int) -> list[Job]:
    """Jobs that find the pairs which meet in some of the tables; and, of two sets, the equal exact-only codes."""
    rows, candidates = rows_and_candidates(values)
    keyed = bits_in(tables[0].key_W) > 0
    shares = max(shares, -(-rows // _MOST_ROWS_OF_JOB)) if keyed else shares
    jobs: list[Job] = [
        TableJob(table, distance, share, shares, work_s(table, rows, candidates) / shares)
        for table in tables
        for share in range(shares)
    ]
    if len(values) == 4 and (values[1].any() or values[3].any()):
        jobs.append(EqualJob(among_exact_only=True, work=equal_s(values)))
    return jobs


def rows_and_candidates(values: Values) -> tuple[int, float]:
    """How many codes may have neighbours, of one set or two, and how many pairs they make."""
    rows_S = [int(np.count_nonzero(~exact_only_N)) for exact_only_N in values[1::2]]
    return sum(rows_S), rows_S[0] * (rows_S[0] - 1) / 2 if len(rows_S) == 1 else float(rows_S[0]) * rows_S[1]


def tables_within(values: Values, distance: int) -> list[Table]:
    """The tables in which every pair within `distance` meets; one of all pairs where comparing them is cheaper."""
    assert 0 <= distance <= MOST_DISTANCE, f"distance is 0 to {MOST_DISTANCE}, not {distance}"
    sides_NW = [_eligible(*side) for side in zip(values[::2], values[1::2], strict=True)]
    varying_W, whole = _varying(sides_NW), all_pairs(sides_NW[0].shape[1])
    k = key_blocks(*rows_and_candidates(values), bits_in(varying_W), distance, len(varying_W))
    return list(whole.cut(varying_W, distance, k).narrowed()) if k else [whole]


def table_pairs(
    table: Table, sides: list[np.ndarray], distance: int, share: int = 0, shares: int = 1
) -> Iterator[PairBlock]:
    """The pairs that meet in a table, of the codes of one side or between two, each as `_taken` gives them.

    A share is only one of the table of all pairs, which has no key.
    """
    codes = Codes.in_one_group(*sides)
    if bits_in(table.key_W) > 0:
        yield from _meetings(table, codes, distance, Cut(codes.rows, 64 * len(table.key_W)), room())
    else:
        yield from compare_all(table, codes, distance, room(), share, shares)


def equal_s(values: Values) -> float:
    return 1e-8 * (len(values[0]) + len(values[2]))


def _eligible(codes_N: np.ndarray, exact_only_N: np.ndarray) -> np.ndarray:
    """Those codes, as words, that may have neighbours."""
    words_NW = as_words(codes_N)
    return words_NW[~exact_only_N] if exact_only_N.any() else words_NW


def _varying(sides_NW: list[np.ndarray]) -> np.ndarray:
    """The bits that are not the same in all codes."""
    one_1W = np.concatenate([side_NW[:1] for side_NW in sides_NW])[:1]
    varying_W = np.zeros(sides_NW[0].shape[1], np.uint64)
    for side_NW in sides_NW:
        if len(side_NW):
            varying_W |= np.bitwise_or.reduce(side_NW ^ one_1W, axis=0)
    return varying_W


def _taken(codes_N: np.ndarray, exact_only_N: np.ndarray, key_W: np.ndarray, share: int, shares: int) -> np.ndarray:
    """The codes of a share that may have neighbours, word by word, then their positions, then columns of none."""
    words_NW = as_words(codes_N)
    positions = np.flatnonzero(_in_share(words_NW.T, exact_only_N, key_W, share, shares))
    words_XN = np.empty((words_NW.shape[1] + 1, len(positions) + LANES), np.uint64)
    words_XN[:-1, :-LANES] = words_NW[positions].T if len(positions) < len(words_NW) else words_NW.T
    words_XN[-1, :-LANES] = positions
    return words_XN


@njit(cache=True, nogil=True)
def _in_share(words_WN, exact_only_N, key_W, share, shares):  # type: ignore[no-untyped-def]
    """Which codes may have neighbours and have a key that hashes into the share."""
    taken_N = np.empty(len(exact_only_N), np.bool_)
    for n in range(len(exact_only_N)):
        # The high bits of the hash are left for the buckets.
        low = mixed(words_WN, n, key_W) & np.uint64(0xFFFFFFFF) if shares > 1 else np.uint64(0)
        taken_N[n] = not exact_only_N[n] and low % np.uint64(shares) == np.uint64(share)
    return taken_N


@njit(cache=True, nogil=True)
def _equal(words_UW, others_VW):  # type: ignore[no-untyped-def]
    """Positions (left_P, right_P) of the equal ones of two sets of sorted distinct codes."""
    most = min(len(words_UW), len(others_VW))
    left_P, right_P = np.empty(most, np.int64), np.empty(most, np.int64)
    found, left, right = 0, 0, 0
    while left < len(words_UW) and right < len(others_VW):
        word = 0
        while word < words_UW.shape[1] - 1 and words_UW[left, word] == others_VW[right, word]:
            word += 1
        if words_UW[left, word] < others_VW[right, word]:
            left += 1
        elif words_UW[left, word] > others_VW[right, word]:
            right += 1
        else:
            left_P[found], right_P[found] = left, right
            found, left, right = found + 1, left + 1, right + 1
    return left_P[:found], right_P[:found]


def _meetings(table: Table, codes: Codes, distance: int, whole: Cut, room: Room) -> Iterator[PairBlock]:
    """The pairs of each group of codes that meet in a table, whose blocks were cut from a whole."""
    large = yield from meet(table, codes, distance, room)
    if not large.groups:
        return
    if table.wanted:
        for narrower in table.narrowed():
            yield from _meetings(narrower, large, distance, whole, room)
    else:
        for number in range(large.groups):
            yield from _meetings_anew(table, large.group(number), distance, whole, room)


def _meetings_anew(table: Table, codes: Codes, distance: int, whole: Cut, room: Room) -> Iterator[PairBlock]:
    """The pairs of a large bucket, by blocks of the bits in which its codes still differ."""
    varying_W = codes.varying_W
    if not (table.apart_EW & varying_W).any(axis=1).all():
        return  # its codes agree in a block that was passed over: another table finds their pairs
    part = Cut(codes.rows, bits_in(varying_W))
    k = key_blocks(part.rows, codes.pairs, part.bits, distance, len(varying_W))
    if k == 0 or (part.bits >= whole.bits and part.rows > _LITTLE_LESS * whole.rows):
        yield from compare_all(table, codes, distance, room, 0, 1)
        return
    for narrower in table.cut(varying_W, distance, k).narrowed():
        yield from _meetings(narrower, codes, distance, part, room)
