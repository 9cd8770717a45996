"""Bringing codes together by some of their bits, and comparing those that share a bucket.

Codes lie as in curation/dedup/comparing.py: `words_XN`, a row for each word and one for the numbers that name them.
Groups are neighbouring columns, `starts_G` their first ones and, last, the end. H: buckets of one group.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from curation.dedup.blocks import NS_PER_CANDIDATE, NS_PER_ROW_AND_TABLE, Table, bits_in
from curation.dedup.comparing import TILE, scan, scan_tiles, settle
from curation.dedup.eight_codes import LANES
from curation.dedup.join import PairBlock

MOST_PAIRS_OF_BUCKET = TILE * TILE
_PAIRS_PER_BLOCK = 2 * MOST_PAIRS_OF_BUCKET
_MOST_BUCKET_BITS = 24
_GROUP, _BUCKET, _LARGE = 0, 1, 2  # places in the state of a meeting: what comes next, and how many groups are kept

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_AGAIN = np.uint64(0xD6E8FEB86659FD93)


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


class Found:
    """Room for found pairs, and how they are handed on."""

    def __init__(self) -> None:
        self.left_P, self.right_P = np.empty(_PAIRS_PER_BLOCK, np.int64), np.empty(_PAIRS_PER_BLOCK, np.int64)
        self.distance_P = np.empty(_PAIRS_PER_BLOCK, np.uint8)
        self.near_left_P, self.near_right_P = np.empty_like(self.left_P), np.empty_like(self.right_P)

    def taken(self, pairs: int, ordered: bool) -> PairBlock:
        """The first `pairs`; `ordered` puts the lower number of each left."""
        left_P, right_P = self.left_P[:pairs], self.right_P[:pairs]
        if ordered:
            return np.minimum(left_P, right_P), np.maximum(left_P, right_P), self.distance_P[:pairs].copy()
        return left_P.copy(), right_P.copy(), self.distance_P[:pairs].copy()


def compare_all(
    table: Table, codes: Codes, distance: int, found: Found, share: int, shares: int
) -> Iterator[PairBlock]:
    """The pairs of one group of codes by comparing each with all; every so-manieth tile of them in a share."""
    lefts, rights = int(codes.starts_G[-1]), int(codes.other_starts_G[-1])
    for left_tile in range(share, -(-lefts // TILE), shares):
        right_tile = left_tile if codes.same else 0
        while right_tile >= 0:
            right_tile, pairs = scan_tiles(
                codes.words_XN, left_tile, lefts, codes.other_words_XM, right_tile, rights, codes.same,
                table.agreed_W, table.apart_EW, distance, found.near_left_P, found.near_right_P,
                found.left_P, found.right_P, found.distance_P,
            )  # fmt: skip
            if pairs:
                yield found.taken(pairs, codes.same)


def meet(table: Table, codes: Codes, distance: int, found: Found) -> Generator[PairBlock, None, Codes]:
    """Bring the codes of each group together by the table's key; give the pairs of small buckets, return large ones.

    A bucket is large, and a group of what is returned, where comparing its codes costs more than keying them by further
    tables would, or where there is no room for all its pairs.
    """
    next_tables = table.spare + 1 if table.wanted else np.inf
    pairs_per_row = next_tables * NS_PER_ROW_AND_TABLE[len(table.key_W)] / NS_PER_CANDIDATE[len(table.key_W)]
    key_bits = bits_in(table.key_W)
    most_left, most_right = (int(np.diff(s_G).max(initial=0)) for s_G in (codes.starts_G, codes.other_starts_G))
    bits = bucket_bits(most_left + (0 if codes.same else most_right), key_bits)
    sorted_XN = np.empty((len(codes.words_XN), most_left + LANES), np.uint64)
    other_sorted_XM = sorted_XN if codes.same else np.empty((len(codes.words_XN), most_right + LANES), np.uint64)
    ends_H = np.empty(1 << bits, np.int64)
    other_ends_H = ends_H if codes.same else np.empty(1 << bits, np.int64)
    bucket_N = np.empty(max(most_left, most_right), np.uint32)
    large_XN, large_starts_G = np.empty_like(codes.words_XN), np.zeros(codes.rows // 2 + 2, np.int64)
    other_large_XM = large_XN if codes.same else np.empty_like(codes.other_words_XM)
    other_large_starts_G = large_starts_G if codes.same else np.zeros_like(large_starts_G)
    state = np.array([0, -1, 0])
    while state[_GROUP] < codes.groups:
        pairs = _meet(
            codes.words_XN, codes.starts_G, codes.other_words_XM, codes.other_starts_G, codes.same, table.key_W, key_bits,
            table.agreed_W, table.apart_EW, distance, pairs_per_row, MOST_PAIRS_OF_BUCKET, sorted_XN, ends_H, other_sorted_XM, other_ends_H,
            bucket_N, large_XN, large_starts_G, other_large_XM, other_large_starts_G,
            found.near_left_P, found.near_right_P, found.left_P, found.right_P, found.distance_P, state,
        )  # fmt: skip
        if pairs:
            yield found.taken(pairs, codes.same)
    groups = int(state[_LARGE]) + 1
    return Codes(large_XN, large_starts_G[:groups], other_large_XM, other_large_starts_G[:groups], codes.same)


@njit(cache=True, nogil=True)
def _meet(left_XN, left_starts_G, right_XM, right_starts_G, same, key_W, key_bits, agreed_W, apart_EW, distance,
          pairs_per_row, most_pairs, left_sorted_XN, left_ends_H, right_sorted_XM, right_ends_H, bucket_N, left_large_XN,
          left_large_starts_G, right_large_XM, right_large_starts_G, near_left_P, near_right_P,
          found_left_P, found_right_P, found_distance_P, state):  # type: ignore[no-untyped-def]  # fmt: skip
    """Go on from `state` until all groups are done or the next bucket's pairs might not fit; return how many found."""
    found, near, words = 0, 0, len(key_W)
    left, right = left_sorted_XN.ctypes.data, right_sorted_XM.ctypes.data
    near_left, near_right = near_left_P.ctypes.data, near_right_P.ctypes.data
    left_apart, right_apart = left_sorted_XN.strides[0], right_sorted_XM.strides[0]
    while state[_GROUP] < len(left_starts_G) - 1:
        group = state[_GROUP]
        lefts = left_starts_G[group + 1] - left_starts_G[group]
        rights = right_starts_G[group + 1] - right_starts_G[group]
        bits = bucket_bits(lefts if same else lefts + rights, key_bits)
        if state[_BUCKET] < 0:
            _into_buckets(left_XN, left_starts_G[group], lefts, key_W, bits, bucket_N, left_sorted_XN, left_ends_H)
            if not same:
                _into_buckets(right_XM, right_starts_G[group], rights, key_W, bits, bucket_N, right_sorted_XM,
                              right_ends_H)  # fmt: skip
            state[_BUCKET] = 0
        full = False
        for bucket in range(state[_BUCKET], 1 << bits):
            left_from, left_to = 0 if bucket == 0 else left_ends_H[bucket - 1], left_ends_H[bucket]
            right_from, right_to = 0 if bucket == 0 else right_ends_H[bucket - 1], right_ends_H[bucket]
            lefts, rights = left_to - left_from, right_to - right_from
            pairs, rows = (lefts * (lefts - 1) // 2, lefts) if same else (lefts * rights, lefts + rights)
            if pairs == 0:
                continue
            if pairs > pairs_per_row * rows or pairs > most_pairs:
                _keep(left_sorted_XN, left_from, left_to, left_large_XN, left_large_starts_G, state[_LARGE])
                if not same:
                    _keep(right_sorted_XM, right_from, right_to, right_large_XM, right_large_starts_G, state[_LARGE])
                state[_LARGE] += 1
                continue
            if found + near + pairs > len(found_left_P):
                state[_BUCKET], full = bucket, True
                break
            near = scan(words, left, left_apart, left_from, left_to, right, right_apart, right_from, right_to, same,
                        distance, near_left, near_right, near)  # fmt: skip
        if near > 0:
            found = settle(left_sorted_XN, right_sorted_XM, agreed_W, apart_EW, near_left_P, near_right_P, near,
                           found_left_P, found_right_P, found_distance_P, found)  # fmt: skip
            near = 0
        if full:
            return found
        state[_GROUP], state[_BUCKET] = group + 1, -1
    return found


@njit(cache=True, nogil=True)
def bucket_bits(rows, key_bits):  # type: ignore[no-untyped-def]
    """Into how many buckets to hash codes, as a power of two.

    More than there are keys, so that few keys share one; but not less than about eight codes in each, for eight are
    compared at once.
    """
    bits = 1
    while bits < min(key_bits + 2, _MOST_BUCKET_BITS) and LANES << bits < rows:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def mixed(words_XN, column, key_W):  # type: ignore[no-untyped-def]
    """A hash of the bits of a code that a key selects, whose high bits are good ones."""
    hashed = np.uint64(0)
    for word in range(len(key_W)):
        if key_W[word] != 0:
            hashed = (hashed ^ (words_XN[word, column] & key_W[word])) * _MIX
            hashed ^= hashed >> np.uint64(32)
    return hashed * _MIX_AGAIN


@njit(cache=True, nogil=True)
def _into_buckets(words_XN, start, rows, key_W, bits, bucket_N, sorted_XN, ends_H):  # type: ignore[no-untyped-def]
    """Write the columns of a group to `sorted_XN` by bucket, and where each bucket ends to `ends_H`."""
    ends_H[: 1 << bits] = 0
    for row in range(rows):
        bucket = mixed(words_XN, start + row, key_W) >> np.uint64(64 - bits)
        bucket_N[row] = np.uint32(bucket)
        ends_H[np.int64(bucket)] += 1
    end = 0
    for bucket in range(1 << bits):  # where the bucket starts; writing its codes moves that to where it ends
        end += ends_H[bucket]
        ends_H[bucket] = end - ends_H[bucket]
    for row in range(rows):
        bucket = np.int64(bucket_N[row])
        place = ends_H[bucket]
        ends_H[bucket] = place + 1
        for word in range(len(words_XN)):
            sorted_XN[word, place] = words_XN[word, start + row]


@njit(cache=True, nogil=True)
def _keep(sorted_XN, start, stop, large_XN, large_starts_G, groups):  # type: ignore[no-untyped-def]
    """Append a bucket to the large ones."""
    at = large_starts_G[groups]
    for word in range(len(sorted_XN)):
        large_XN[word, at : at + stop - start] = sorted_XN[word, start:stop]
    large_starts_G[groups + 1] = at + stop - start
