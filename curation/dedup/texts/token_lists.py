"""Lists of sets by the first tokens that they may share, their cutting by further tokens, and the pairs in them.

The kernels of curation/dedup/texts/jaccard.py, which says why they are right. U: sets; V: tokens; E: entries; L: lists.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.texts.overlap import overlap


class Side(NamedTuple):
    """The sets of one side of a join, and its lists: entries `starts_V1[v]` to `starts_V1[v + 1]` are of token v.

    `bits_U` has a bit per set that flips with each token that hashes to it: sets differ in at least as many tokens.
    """

    starts_U1: np.ndarray
    tokens_T: np.ndarray
    bits_U: np.ndarray
    starts_V1: np.ndarray
    set_E: np.ndarray
    place_E: np.ndarray


class Lists(NamedTuple):
    """L lists of entries, each `begin` to `end`: a set, and the place in it of the last token that the list is for.

    Sets ascend within a list, and so do their sizes; `size_E` and `bits_E` are the sets'.
    """

    begin_L: np.ndarray
    end_L: np.ndarray
    set_E: np.ndarray
    place_E: np.ndarray
    size_E: np.ndarray
    bits_E: np.ndarray


@njit(cache=True, nogil=True)
def parities(starts_U1, tokens_T):  # type: ignore[no-untyped-def]
    """For each set, 64 bits of which each says whether an odd number of its tokens hash to it."""
    bits_U = np.zeros(len(starts_U1) - 1, np.uint64)
    for u in range(len(bits_U)):
        for token in tokens_T[starts_U1[u] : starts_U1[u + 1]]:
            place = (np.uint64(token) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)
            bits_U[u] ^= np.uint64(1) << place
    return bits_U


@njit(cache=True, nogil=True)
def prefix_lists(starts_U1, tokens_T, partner_S, vocabulary):  # type: ignore[no-untyped-def]
    """Under each token the sets that have it in their prefix, ascending, and where: starts_V1, set_E, place_E."""
    starts_V1 = np.zeros(vocabulary + 1, np.int64)
    for u in range(len(starts_U1) - 1):
        for token in tokens_T[starts_U1[u] : _prefix_end(starts_U1, u, partner_S)]:
            starts_V1[token + 1] += 1
    starts_V1 = np.cumsum(starts_V1)
    ends_V = starts_V1[:-1].copy()
    set_E, place_E = np.empty(starts_V1[-1], np.int32), np.empty(starts_V1[-1], np.int32)
    for u in range(len(starts_U1) - 1):
        for t in range(starts_U1[u], _prefix_end(starts_U1, u, partner_S)):
            end = ends_V[tokens_T[t]]
            set_E[end], place_E[end] = u, t - starts_U1[u]
            ends_V[tokens_T[t]] += 1
    return starts_V1, set_E, place_E


@njit(cache=True, nogil=True)
def _prefix_end(starts_U1, u, partner_S):  # type: ignore[no-untyped-def]
    return starts_U1[u + 1] - partner_S[starts_U1[u + 1] - starts_U1[u]] + 1


@njit(cache=True, nogil=True)
def next_entries(lists, partner_S, level):  # type: ignore[no-untyped-def]
    """How many entries each list becomes when it is cut."""
    entries_L = np.zeros(len(lists.begin_L), np.int64)
    for number in range(len(entries_L)):
        for e in range(lists.begin_L[number], lists.end_L[number]):
            entries_L[number] += _next_end(lists, e, partner_S, level) - (lists.place_E[e] + 1)
    return entries_L


@njit(cache=True, nogil=True)
def _next_end(lists, e, partner_S, level):  # type: ignore[no-untyped-def]
    """The end of the places, behind an entry's own, where the next token may stand that two sets share."""
    size = lists.size_E[e]
    return max(min(size, size - partner_S[size] + 1 + level), lists.place_E[e] + 1)


@njit(cache=True, nogil=True)
def grown_entries(side, lists, partner_S, level, is_cut_L):  # type: ignore[no-untyped-def]
    """The entries of lists that are cut: a key of (list, next token), the set, and the place of that token in it."""
    count = next_entries(lists, partner_S, level)[is_cut_L].sum()
    key_E, set_E, place_E = np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.int32)
    written = 0
    for number in np.flatnonzero(is_cut_L):
        for e in range(lists.begin_L[number], lists.end_L[number]):
            start = side.starts_U1[lists.set_E[e]]
            for place in range(lists.place_E[e] + 1, _next_end(lists, e, partner_S, level)):
                key_E[written] = (number << 32) | np.int64(side.tokens_T[start + place])
                set_E[written], place_E[written] = lists.set_E[e], place
                written += 1
    return key_E, set_E, place_E


@njit(cache=True, nogil=True)
def scan(sides, lists, is_same, bounds, level, is_cut_L, at, block):  # type: ignore[no-untyped-def]
    """Write pairs into `block` from (list, left entry, right entry) on; return where it was full, and how many.

    Where both sides are the same, the right entries are those before the left one, and the lower set is written first.
    Of lists that will be cut only the pairs come for which `level` shared tokens suffice.
    """
    (left, right), (left_P, right_P, overlap_P) = lists, block
    number, from_x, from_y = at
    found = 0
    while number < len(is_cut_L):
        low = right.begin_L[number]
        for x in range(max(from_x, left.begin_L[number]), left.end_L[number]):
            end = x if is_same else right.end_L[number]
            while low < end and right.size_E[low] < bounds.partner_S[left.size_E[x]]:
                low += 1
            for y in range(max(from_y, low), end):
                need = bounds.overlap_S[left.size_E[x] + right.size_E[y]]
                if bounds.partner_S[right.size_E[y]] > left.size_E[x] or (is_cut_L[number] and need > level):
                    break  # so it is for all that come, which are no smaller
                if not _may_share(left, x, right, y, need, level):
                    continue
                if found == len(left_P):
                    return number, x, y, found
                shared = _shared(sides, left, x, right, y, need, level)
                if shared:
                    u, v = left.set_E[x], right.set_E[y]
                    left_P[found], right_P[found], overlap_P[found] = v if is_same else u, u if is_same else v, shared
                    found += 1
            from_y = 0
        from_x = 0
        number += 1
    return number, 0, 0, found


@njit(cache=True, nogil=True)
def _may_share(left, x, right, y, need, level):  # type: ignore[no-untyped-def]
    """Whether two entries' sets can share `need` tokens of which the entries' own are the first `level`.

    If fewer than `level` tokens suffice, the pair was found when lists were for fewer.
    """
    room = min(left.size_E[x] - left.place_E[x], right.size_E[y] - right.place_E[y]) - 1
    if not 0 <= need - level <= room:
        return False
    return _ones(left.bits_E[x] ^ right.bits_E[y]) <= left.size_E[x] + right.size_E[y] - 2 * need


@njit(cache=True, nogil=True)
def _shared(sides, left, x, right, y, need, level):  # type: ignore[no-untyped-def]
    """How many tokens two entries' sets share; 0 if fewer than `need`, or if more than `level` up to the entries."""
    start_x, start_y = sides[0].starts_U1[left.set_E[x]], sides[1].starts_U1[right.set_E[y]]
    tokens_x = sides[0].tokens_T[start_x : start_x + left.size_E[x]]
    tokens_y = sides[1].tokens_T[start_y : start_y + right.size_E[y]]
    after_x, after_y = left.place_E[x] + 1, right.place_E[y] + 1
    behind = overlap(tokens_x[after_x:], tokens_y[after_y:], need - level)
    if behind < need - level or overlap(tokens_x[:after_x], tokens_y[:after_y], 0) != level:
        return 0
    return level + behind


@njit(cache=True, nogil=True)
def _ones(bits):  # type: ignore[no-untyped-def]
    """How many bits are 1, as int64."""
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))
