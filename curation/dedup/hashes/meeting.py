"""Walking the tables of a Hamming join: codes that meet in a small bucket are compared, large buckets are given back.

Codes lie as in comparing.py: `words_XN`, a row for each word and one for the numbers that name them.
Groups are neighbouring columns, `starts_G` their first ones and, last, the end. H: buckets of one group.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.hashes.blocks import NS_PER_CANDIDATE, NS_PER_ROW_AND_TABLE, Table, bits_in
from curation.dedup.hashes.buckets import bucket_bits, into_buckets, keep
from curation.dedup.hashes.comparing import TILE, Room, Where, place, scan, scan_tiles, settle
from curation.dedup.hashes.eight_codes import LANES
from curation.dedup.join import PairBlock

MOST_PAIRS_OF_BUCKET = 4 * TILE * TILE
_PAIRS_PER_BLOCK = MOST_PAIRS_OF_BUCKET
_GROUP, _BUCKET, _LARGE = 0, 1, 2  # places in the state of a meeting: what comes next, and how many groups are kept


@dataclass(frozen=True)
class Codes:
    """Codes in groups, and those of another set in as many; without others, pairs are wanted inside each group."""

    words_XN: np.ndarray
    starts_G: np.ndarray
    other_words_XM: np.ndarray
    other_starts_G: np.ndarray
    same: bool

    @classmethod
    def in_one_group(cls, words_XN: np.ndarray, other_words_XM: np.ndarray | None = None) -> "Codes":
        """All codes in one group; the arrays end in LANES columns that belong to no code."""
        right_XM = words_XN if other_words_XM is None else other_words_XM
        starts = [np.array([0, side_XN.shape[1] - LANES]) for side_XN in (words_XN, right_XM)]
        return cls(words_XN, starts[0], right_XM, starts[1], same=other_words_XM is None)

    @property
    def groups(self) -> int:
        return len(self.starts_G) - 1

    @property
    def rows(self) -> int:
        """How many codes there are, of both sides."""
        return int(self.starts_G[-1]) + (0 if self.same else int(self.other_starts_G[-1]))

    @property
    def pairs(self) -> float:
        """How many pairs the groups have."""
        lefts_G, rights_G = np.diff(self.starts_G).astype(float), np.diff(self.other_starts_G).astype(float)
        return float((lefts_G * (lefts_G - 1) / 2 if self.same else lefts_G * rights_G).sum())

    @property
    def varying_W(self) -> np.ndarray:
        """The bits that are not the same in all codes."""
        sides = [self.words_XN[:-1, : self.starts_G[-1]], self.other_words_XM[:-1, : self.other_starts_G[-1]]]
        one_W1 = next(
            (side_WN[:, :1] for side_WN in sides if side_WN.shape[1]), np.zeros((len(sides[0]), 1), np.uint64)
        )
        return np.bitwise_or.reduce([np.bitwise_or.reduce(side_WN ^ one_W1, axis=1) for side_WN in sides])

    def group(self, number: int) -> "Codes":
        """One group alone."""
        left_XN = _columns(self.words_XN, self.starts_G, number)
        return Codes.in_one_group(
            left_XN, None if self.same else _columns(self.other_words_XM, self.other_starts_G, number)
        )


def _columns(words_XN: np.ndarray, starts_G: np.ndarray, group: int) -> np.ndarray:
    start, stop = starts_G[group], starts_G[group + 1]
    columns_XN = np.zeros((len(words_XN), stop - start + LANES), np.uint64)
    columns_XN[:, :-LANES] = words_XN[:, start:stop]
    return columns_XN


class Side(NamedTuple):
    """One side of a meeting: its codes in groups, a group's codes by bucket, and the large buckets kept so far."""

    words_XN: np.ndarray
    starts_G: np.ndarray
    sorted_XN: np.ndarray
    ends_H: np.ndarray
    large_XN: np.ndarray
    large_starts_G: np.ndarray


def room() -> Room:
    """Room for the pairs of a block."""
    near_left_P, near_right_P, left_P, right_P = (np.empty(_PAIRS_PER_BLOCK, np.int64) for _ in range(4))
    return Room(near_left_P, near_right_P, left_P, right_P, np.empty(_PAIRS_PER_BLOCK, np.uint8))


def compare_all(table: Table, codes: Codes, distance: int, room: Room, share: int, shares: int) -> Iterator[PairBlock]:
    """The pairs of one group by comparing each code with all; a share is every so many tiles of the codes."""
    lefts, rights = int(codes.starts_G[-1]), int(codes.other_starts_G[-1])
    for left_tile in range(share, -(-lefts // TILE), shares):
        right_tile = left_tile if codes.same else 0
        while right_tile >= 0:
            right_tile, pairs = scan_tiles(
                codes.words_XN, left_tile, lefts, codes.other_words_XM, right_tile, rights, codes.same,
                Where(table.agreed_W, table.apart_EW), distance, room,
            )  # fmt: skip
            if pairs:
                yield _taken(room, pairs, codes.same)


def meet(table: Table, codes: Codes, distance: int, room: Room) -> Generator[PairBlock, None, Codes]:
    """Bring the codes of each group together by the table's key; give the pairs of small buckets, return large ones.

    A bucket is large, and a group of what is returned, where comparing its codes costs more than keying them by further
    tables would, or where there is no room for all its pairs.
    """
    words, key_bits = len(table.key_W), bits_in(table.key_W)
    next_tables = table.spare + 1 if table.wanted else np.inf
    pairs_per_row = next_tables * NS_PER_ROW_AND_TABLE[words] / NS_PER_CANDIDATE[words]
    most_rows = _largest(codes.starts_G) + (0 if codes.same else _largest(codes.other_starts_G))
    buckets = 1 << bucket_bits(most_rows, key_bits)
    left = _side(codes.words_XN, codes.starts_G, buckets, codes.rows)
    right = left if codes.same else _side(codes.other_words_XM, codes.other_starts_G, buckets, codes.rows)
    bucket_N = np.empty(most_rows, np.uint32)
    where = Where(table.agreed_W, table.apart_EW)
    state = np.array([0, -1, 0])
    while state[_GROUP] < codes.groups:
        pairs = _meet(left, right, codes.same, table.key_W, key_bits, where, distance, pairs_per_row,
                      MOST_PAIRS_OF_BUCKET, bucket_N, room, state)  # fmt: skip
        if pairs:
            yield _taken(room, pairs, codes.same)
    ends = int(state[_LARGE]) + 1
    return Codes(left.large_XN, left.large_starts_G[:ends], right.large_XN, right.large_starts_G[:ends], codes.same)


def _largest(starts_G: np.ndarray) -> int:
    return int(np.diff(starts_G).max(initial=0))


def _side(words_XN: np.ndarray, starts_G: np.ndarray, buckets: int, rows: int) -> Side:
    """Arrays for one side; memory that is not written to is not taken."""
    sorted_XN = np.empty((len(words_XN), _largest(starts_G) + LANES), np.uint64)
    large_starts_G = np.empty(rows // 2 + 2, np.int64)
    large_starts_G[0] = 0
    return Side(words_XN, starts_G, sorted_XN, np.empty(buckets, np.int64), np.empty_like(words_XN), large_starts_G)


def _taken(room: Room, pairs: int, ordered: bool) -> PairBlock:
    """The first pairs of a room, which is then free; `ordered` puts the lower number of each left."""
    left_P, right_P, distance_P = room.left_P[:pairs], room.right_P[:pairs], room.distance_P[:pairs].copy()
    if ordered:
        return np.minimum(left_P, right_P), np.maximum(left_P, right_P), distance_P
    return left_P.copy(), right_P.copy(), distance_P


@njit(cache=True, nogil=True)
def _meet(left, right, same, key_W, key_bits, where, distance, pairs_per_row, most_pairs, bucket_N, room, state):  # type: ignore[no-untyped-def]
    """Go on from `state` until all groups are done or the next bucket's pairs might not fit; return how many found."""
    found = 0
    while state[_GROUP] < len(left.starts_G) - 1:
        group = state[_GROUP]
        lefts = left.starts_G[group + 1] - left.starts_G[group]
        rights = right.starts_G[group + 1] - right.starts_G[group]
        bits = bucket_bits(lefts if same else lefts + rights, key_bits)
        if state[_BUCKET] < 0:
            into_buckets(left.words_XN, left.starts_G[group], lefts, key_W, bits, bucket_N, left.sorted_XN, left.ends_H)
            if not same:
                into_buckets(right.words_XN, right.starts_G[group], rights, key_W, bits, bucket_N, right.sorted_XN,
                             right.ends_H)  # fmt: skip
            state[_BUCKET] = 0
        near = _scan_buckets(left, right, same, 1 << bits, len(key_W), distance, pairs_per_row, most_pairs, room,
                             len(room.left_P) - found, state)  # fmt: skip
        if near > 0:
            found = settle(left.sorted_XN, right.sorted_XN, where, near, room, found)
        if state[_BUCKET] < 1 << bits:
            return found
        state[_GROUP], state[_BUCKET] = group + 1, -1
    return found


@njit(cache=True, nogil=True)
def _scan_buckets(left, right, same, buckets, words, distance, pairs_per_row, most_pairs, room, space, state):  # type: ignore[no-untyped-def]
    """Compare the codes of small buckets and keep large ones, from `state` on and while the pairs may fit a space.

    Returns how many are near.
    """
    left_place, right_place, near = place(left.sorted_XN), place(right.sorted_XN), 0
    near_pairs = room.near_left_P.ctypes.data, room.near_right_P.ctypes.data
    for bucket in range(state[_BUCKET], buckets):
        left_from, left_to = 0 if bucket == 0 else left.ends_H[bucket - 1], left.ends_H[bucket]
        right_from, right_to = 0 if bucket == 0 else right.ends_H[bucket - 1], right.ends_H[bucket]
        lefts, rights = left_to - left_from, right_to - right_from
        pairs, rows = (lefts * (lefts - 1) // 2, lefts) if same else (lefts * rights, lefts + rights)
        if pairs > pairs_per_row * rows or pairs > most_pairs:
            keep(left.sorted_XN, left_from, left_to, left.large_XN, left.large_starts_G, state[_LARGE])
            if not same:
                keep(right.sorted_XN, right_from, right_to, right.large_XN, right.large_starts_G, state[_LARGE])
            state[_LARGE] += 1
        elif near + pairs > space:
            state[_BUCKET] = bucket
            return near
        elif pairs > 0:
            near = scan(words, left_place, left_from, left_to, right_place, right_from, right_to, same, distance,
                        near_pairs, near)  # fmt: skip
    state[_BUCKET] = buckets
    return near
