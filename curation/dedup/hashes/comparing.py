"""Comparing codes with codes, eight at a time: the innermost loops of every Hamming join.

W: words of 64 bits in a code. Codes lie word by word as `words_XN`, X = W + 1: row w holds word w of every code, the
last row the numbers by which pairs name them. Eight columns at the end belong to no code: loads may run into them.
E: masks that a pair must disagree in; P: places for pairs.

The loops take addresses, not arrays: numba counts the references of every array that a call passes, which costs more
than comparing a code with fifty others.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from curation.dedup.hashes.eight_codes import (
    LANES,
    add_eight,
    eight_at,
    lanes_within,
    lower_counts,
    lowest_one,
    ones,
    ones_apart,
    ones_apart_among,
    put_word,
    spread,
    word_at,
)

TILE = 1024  # codes that stay in the first level of cache beside four others
_CHUNK = 256
_FEW = 9


class Where(NamedTuple):
    """Which pairs a table may find: they agree in all bits of `agreed_W` and disagree in each mask of `apart_EW`."""

    agreed_W: np.ndarray
    apart_EW: np.ndarray


class Room(NamedTuple):
    """Room for the columns of pairs within the distance, and for those found: their numbers and distances."""

    near_left_P: np.ndarray
    near_right_P: np.ndarray
    left_P: np.ndarray
    right_P: np.ndarray
    distance_P: np.ndarray


def _scan_of(words: int) -> Any:
    """The loops for codes of so many words, compiled for each."""
    looked_at = min(words, 2)  # of unrelated codes two words lie 64 bits apart, give or take six
    near_to_two = (4, 14)[looked_at - 1]  # unrelated codes rarely differ from both of two in so few bits

    @njit(nogil=True, inline="always")
    def near_lanes(left, left_apart, right, right_apart, most):  # type: ignore[no-untyped-def]
        """Which of the eight codes at `right` lie within `most` bits of the one at `left`, a bit for each."""
        counts = ones_apart(spread(word_at(left)), eight_at(right))
        for word in range(1, words):
            counts = add_eight(
                counts, ones_apart(spread(word_at(left + word * left_apart)), eight_at(right + word * right_apart))
            )
        return lanes_within(counts, most)

    @njit(nogil=True, inline="always")
    def four_have_near(left, left_apart, right, right_apart, codes, most):  # type: ignore[no-untyped-def]
        """Whether the four codes at `left` may have one within `most` bits among those at `right`."""
        far = spread(np.uint64(255))
        least_0, least_1, least_2, least_3 = far, far, far, far
        for at in range(right, right + 8 * codes, 8 * LANES):
            eight = eight_at(at)
            counts_0 = ones_apart(spread(word_at(left)), eight)
            counts_1 = ones_apart(spread(word_at(left + 8)), eight)
            counts_2 = ones_apart(spread(word_at(left + 16)), eight)
            counts_3 = ones_apart(spread(word_at(left + 24)), eight)
            for word in range(1, looked_at):
                eight, code = eight_at(at + word * right_apart), left + word * left_apart
                counts_0 = add_eight(counts_0, ones_apart(spread(word_at(code)), eight))
                counts_1 = add_eight(counts_1, ones_apart(spread(word_at(code + 8)), eight))
                counts_2 = add_eight(counts_2, ones_apart(spread(word_at(code + 16)), eight))
                counts_3 = add_eight(counts_3, ones_apart(spread(word_at(code + 24)), eight))
            least_0, least_1 = lower_counts(least_0, counts_0), lower_counts(least_1, counts_1)
            least_2, least_3 = lower_counts(least_2, counts_2), lower_counts(least_3, counts_3)
        least = lower_counts(lower_counts(least_0, least_1), lower_counts(least_2, least_3))
        return lanes_within(least, most) != 0

    @njit(nogil=True, inline="always")
    def two_and_two_have_near(left, left_apart, right, right_apart, codes, most):  # type: ignore[no-untyped-def]
        """`four_have_near` in half the time: by the bits in which a code differs from both of two."""
        far = spread(np.uint64(255))
        least_0, least_1 = far, far
        for at in range(right, right + 8 * codes, 8 * LANES):
            counts_0, counts_1 = spread(np.uint64(0)), spread(np.uint64(0))
            for word in range(looked_at):
                eight, code = eight_at(at + word * right_apart), left + word * left_apart
                alike_0, alike_1 = ~(word_at(code) ^ word_at(code + 8)), ~(word_at(code + 16) ^ word_at(code + 24))
                counts_0 = add_eight(counts_0, ones_apart_among(spread(word_at(code)), eight, spread(alike_0)))
                counts_1 = add_eight(counts_1, ones_apart_among(spread(word_at(code + 16)), eight, spread(alike_1)))
            least_0, least_1 = lower_counts(least_0, counts_0), lower_counts(least_1, counts_1)
        return lanes_within(lower_counts(least_0, least_1), most) != 0

    @njit(nogil=True)  # what calls it is cached with it
    def scan(left, left_from, left_to, right, right_from, right_to, same, distance, near_pairs, pairs):  # type: ignore[no-untyped-def]
        """Append the columns of pairs within `distance` to the `pairs` there are; return how many there are then."""
        most, row = np.uint64(distance), left_from
        (left_at, left_apart), (right_at, right_apart) = left, right
        near_left, near_right = near_pairs
        while row < left_to:
            rows = 4 if row + 4 <= left_to and right_to - right_from >= _FEW else 1
            chunk, code = row + 1 if same else right_from, left_at + 8 * row
            while chunk < right_to:
                stop = min(chunk + _CHUNK, right_to)
                near_any, start = rows == 1, right_at + 8 * chunk
                if rows == 4 and same and chunk == row + 1:  # the four among each other, and with a few more
                    for other in range(4):
                        near_any |= near_lanes(code + 8 * other, left_apart, start, right_apart, most) >> other != 0
                    start += 8 * LANES
                if not near_any:
                    codes = stop - (start - right_at) // 8
                    if distance <= near_to_two:
                        near_any = two_and_two_have_near(code, left_apart, start, right_apart, codes, most)
                    else:
                        near_any = four_have_near(code, left_apart, start, right_apart, codes, most)
                if near_any:
                    for other in range(row, row + rows):
                        for at in range(max(chunk, other + 1) if same else chunk, stop, LANES):
                            near = near_lanes(left_at + 8 * other, left_apart, right_at + 8 * at, right_apart, most)
                            if stop - at < LANES:
                                near &= (1 << (stop - at)) - 1
                            while near != 0:
                                put_word(near_left + 8 * pairs, other)
                                put_word(near_right + 8 * pairs, at + lowest_one(near))
                                near &= near - 1
                                pairs += 1
                chunk = stop
            row += rows
        return pairs

    return scan


_scan_1, _scan_4 = _scan_of(1), _scan_of(4)


@njit(nogil=True, inline="always")
def place(words_XN):  # type: ignore[no-untyped-def]
    """Where codes lie: the address of the first one's first word, and how many bytes on its next word is."""
    return words_XN.ctypes.data, words_XN.strides[0]


@njit(nogil=True, inline="always")
def scan(words, left, left_from, left_to, right, right_from, right_to, same, distance, near_pairs, pairs):  # type: ignore[no-untyped-def]
    """Append the pairs of two ranges of columns within `distance` to the `pairs` there are; return their number then.

    `left` and `right` are places. `same` says that both ranges are one, whose pairs are wanted once. The columns of
    pairs are written to the two addresses of `near_pairs`, where there must be room for all pairs of the two ranges.
    """
    if words == 1:
        return _scan_1(left, left_from, left_to, right, right_from, right_to, same, distance, near_pairs, pairs)
    return _scan_4(left, left_from, left_to, right, right_from, right_to, same, distance, near_pairs, pairs)


@njit(cache=True, nogil=True)
def settle(left_XN, right_XM, where, pairs, room, found):  # type: ignore[no-untyped-def]
    """Append those of the near `pairs` that lie `where` they should to the `found` ones; return how many there are."""
    words = len(where.agreed_W)
    for pair in range(pairs):
        left, right = room.near_left_P[pair], room.near_right_P[pair]
        apart, belongs = 0, True
        for word in range(words):
            difference = left_XN[word, left] ^ right_XM[word, right]
            apart += ones(difference)
            belongs &= difference & where.agreed_W[word] == 0
        for mask in range(len(where.apart_EW)):
            differs = False
            for word in range(words):
                differs |= (left_XN[word, left] ^ right_XM[word, right]) & where.apart_EW[mask, word] != 0
            belongs &= differs
        if belongs:
            room.left_P[found], room.right_P[found] = left_XN[words, left], right_XM[words, right]
            room.distance_P[found] = apart
            found += 1
    return found


@njit(cache=True, nogil=True)
def scan_tiles(left_XN, left_tile, lefts, right_XM, right_tile, rights, same, where, distance, room):  # type: ignore[no-untyped-def]
    """Compare one tile of the `lefts` codes with those of the `rights` codes from `right_tile` on.

    Returns (next tile, pairs found): stops early where the pairs of the next tile might not fit; -1 says that none is
    left. With `same`, begin at `left_tile`.
    """
    left_from, near, words = left_tile * TILE, 0, len(where.agreed_W)
    left_to = min(left_from + TILE, lefts)
    left, right = place(left_XN), place(right_XM)
    near_pairs = room.near_left_P.ctypes.data, room.near_right_P.ctypes.data
    while right_tile * TILE < rights and len(room.left_P) - near >= TILE * TILE:
        right_from = right_tile * TILE
        right_to, is_same = min(right_from + TILE, rights), same and left_tile == right_tile
        near = scan(words, left, left_from, left_to, right, right_from, right_to, is_same, distance, near_pairs, near)
        right_tile += 1
    found = settle(left_XN, right_XM, where, near, room, 0)
    return right_tile if right_tile * TILE < rights else -1, found
