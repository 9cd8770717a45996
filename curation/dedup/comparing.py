"""Comparing codes with codes, eight at a time: the innermost loops of every Hamming join.

W: words of 64 bits in a code. Codes lie word by word as `words_XN`, X = W + 1: row w holds word w of every code, the
last row the numbers by which pairs name them. Eight columns at the end belong to no code: loads may run into them.
E: masks that a pair must disagree in; P: places for pairs.

The loops take addresses, not arrays: numba counts the references of every array that a call passes, which costs more
than comparing a code with fifty others.
"""

from typing import Any

import numpy as np
from numba import njit

from curation.dedup.eight_codes import (
    LANES,
    add_eight,
    eight_at,
    lanes_within,
    lower_counts,
    lowest_one,
    ones,
    ones_apart,
    put_word,
    spread,
    word_at,
)

TILE = 1024  # codes that stay in the first level of cache beside four others
_CHUNK = 256
_FEW = 9


def _scan_of(words: int) -> Any:
    """The loops for codes of so many words, compiled for each."""
    looked_at = min(words, 2)  # of unrelated codes two words lie 64 bits apart, give or take six

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

    @njit(cache=True, nogil=True)
    def scan(left, left_apart, left_from, left_to, right, right_apart, right_from, right_to, same, distance,
             near_left, near_right, pairs):  # type: ignore[no-untyped-def]  # fmt: skip
        """Append the columns of pairs within `distance` to the `pairs` there are; return how many there are then."""
        most, row = np.uint64(distance), left_from
        while row < left_to:
            rows = 4 if row + 4 <= left_to and right_to - right_from >= _FEW else 1
            chunk = row + 1 if same else right_from
            while chunk < right_to:
                stop = min(chunk + _CHUNK, right_to)
                near_any, others = rows == 1, chunk
                if rows == 4 and same and chunk == row + 1:  # the four among each other, and with a few more
                    for other in range(4):
                        near = near_lanes(left + 8 * (row + other), left_apart, right + 8 * chunk, right_apart, most)
                        near_any |= near >> other != 0
                    others += LANES
                if not near_any:
                    near_any = four_have_near(
                        left + 8 * row, left_apart, right + 8 * others, right_apart, stop - others, most
                    )
                if near_any:
                    for other in range(row, row + rows):
                        for at in range(max(chunk, other + 1) if same else chunk, stop, LANES):
                            near = near_lanes(left + 8 * other, left_apart, right + 8 * at, right_apart, most)
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
def scan(words, left, left_apart, left_from, left_to, right, right_apart, right_from, right_to, same, distance,
         near_left, near_right, pairs):  # type: ignore[no-untyped-def]  # fmt: skip
    """Append the pairs of two ranges of columns within `distance` to the `pairs` there are; return their number then.

    `left` and `right` are addresses of the codes' first words; `apart` bytes on lie their next ones. `same` says that
    both ranges are one, whose pairs are wanted once. The columns of pairs are written to the addresses `near_left` and
    `near_right`, where there must be room for all pairs of the two ranges.
    """
    if words == 1:
        return _scan_1(left, left_apart, left_from, left_to, right, right_apart, right_from, right_to, same, distance,
                       near_left, near_right, pairs)  # fmt: skip
    return _scan_4(left, left_apart, left_from, left_to, right, right_apart, right_from, right_to, same, distance,
                   near_left, near_right, pairs)  # fmt: skip


@njit(cache=True, nogil=True)
def settle(left_XN, right_XM, agreed_W, apart_EW, near_left_P, near_right_P, pairs,
           found_left_P, found_right_P, found_distance_P, found):  # type: ignore[no-untyped-def]  # fmt: skip
    """Append those of the near `pairs` to the `found` ones that are this table's; return how many are found then.

    They agree in `agreed_W` and disagree in each of `apart_EW`.
    """
    words = len(agreed_W)
    for pair in range(pairs):
        left, right = near_left_P[pair], near_right_P[pair]
        apart, belongs = 0, True
        for word in range(words):
            difference = left_XN[word, left] ^ right_XM[word, right]
            apart += ones(difference)
            belongs &= difference & agreed_W[word] == 0
        for mask in range(len(apart_EW)):
            differs = False
            for word in range(words):
                differs |= (left_XN[word, left] ^ right_XM[word, right]) & apart_EW[mask, word] != 0
            belongs &= differs
        if belongs:
            found_left_P[found], found_right_P[found] = left_XN[words, left], right_XM[words, right]
            found_distance_P[found] = apart
            found += 1
    return found


@njit(cache=True, nogil=True)
def scan_tiles(left_XN, left_tile, lefts, right_XM, right_tile, rights, same, agreed_W, apart_EW, distance,
               near_left_P, near_right_P, found_left_P, found_right_P, found_distance_P):  # type: ignore[no-untyped-def]  # fmt: skip
    """Compare one tile of the `lefts` codes with those of the `rights` codes from `right_tile` on.

    Returns (next tile, pairs found): stops early where the pairs of the next tile might not fit; -1 says that none is
    left. With `same`, begin at `left_tile`.
    """
    left_from, near, words = left_tile * TILE, 0, len(agreed_W)
    left_to = min(left_from + TILE, lefts)
    while right_tile * TILE < rights and len(near_left_P) - near >= TILE * TILE:
        right_from = right_tile * TILE
        near = scan(words, left_XN.ctypes.data, left_XN.strides[0], left_from, left_to, right_XM.ctypes.data,
                    right_XM.strides[0], right_from, min(right_from + TILE, rights), same and left_tile == right_tile,
                    distance, near_left_P.ctypes.data, near_right_P.ctypes.data, near)  # fmt: skip
        right_tile += 1
    found = settle(left_XN, right_XM, agreed_W, apart_EW, near_left_P, near_right_P, near,
                   found_left_P, found_right_P, found_distance_P, 0)  # fmt: skip
    return right_tile if right_tile * TILE < rights else -1, found
