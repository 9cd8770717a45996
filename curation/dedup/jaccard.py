"""Exact joins of sets by Jaccard, through the rarest tokens that two sets share.

Two sets of at least this Jaccard share a token among the first |x| - ceil(t |x|) + 1 of either, tokens ordered from the
rarest: so sets are listed under those, and compared within a list (prefix filter: Chaudhuri et al. 2006; Bayardo et al.
2007). A list takes a pair only where its token is the first that both share, which bounds from below how many tokens
must follow (positional filter: Xiao et al. 2008), and gives each pair once. 64 bits of each set lie beside the list, so
that most pairs are refused without a look at their tokens.

A list that is long (a common token in the prefix of many sets: captions of frequent words only) is cut by the second
token that two sets share, then by the third, and so on, as long as that costs less than comparing all with all.
What is left quadratic is what cannot be cut: sets that share their first rare tokens and are alike after that, of
which most are pairs.

U: distinct sets (curation/dedup/words.py); E: entries of lists; L: lists; S: sizes; P: pairs.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.join import PairBlock, Values
from curation.dedup.words import WordSets

_PAIRS_PER_BLOCK = 1 << 20
_ENTRIES_PER_JOB = 1 << 18
_ENTRY_COST_PAIRS = 64  # measured: making and sorting an entry takes as long as refusing so many pairs by their bits
_NS_PER_PAIR = 1.0


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


class Bounds(NamedTuple):
    """What a threshold asks for: of a size, the least size of a partner; of the sum of two sizes, the least overlap."""

    partner_S: np.ndarray
    overlap_S: np.ndarray


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


@dataclass(frozen=True)
class TokensJob:
    """The pairs whose first shared token is one of `first` to `last`, without the last."""

    first: int
    last: int
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Blocks of (left_P, right_P, overlap_P): the numbers of two sets, and how many tokens they share (int32).

        Memory goes with the entries of the job's tokens, and of one token where that alone has more.
        """
        bounds, sides = Bounds(*values[:2]), [Side(*values[n : n + 6]) for n in range(2, len(values), 6)]
        lists = _wanted([_listed(side, self.first, self.last) for side in sides])
        level = 1  # how many tokens a list is for
        while len(lists[0].begin_L):
            is_cut_L = _worth_cutting(lists, bounds, level)
            yield from _pairs(sides, lists, bounds, level, is_cut_L)
            lists = _wanted(_cut(sides, lists, bounds, level, is_cut_L))
            level += 1


def self_join(sets: WordSets, threshold: Fraction) -> tuple[Values, list[TokensJob]]:
    """What finds each pair of distinct sets, left < right, whose Jaccard is at least `threshold` (above 0, up to 1).

    A Jaccard exactly at the threshold is in: give the decimal that was written, `Fraction("0.8")`, and not a float.
    """
    bounds = _bounds([sets], threshold)
    side = _side(sets, bounds)
    return (*bounds, *side), _jobs([side])


def cross_join(sets: WordSets, others: WordSets, threshold: Fraction) -> tuple[Values, list[TokensJob]]:
    """The same for pairs of a set and one of the others; both must number tokens alike (`WordSets.of_texts`)."""
    assert len(sets.hash_V) == len(others.hash_V), "the sets come from different calls of word_sets"
    bounds = _bounds([sets, others], threshold)
    sides = [_side(each, bounds) for each in (sets, others)]
    return (*bounds, *sides[0], *sides[1]), _jobs(sides)


def least_overlap(sizes: int, threshold: Fraction) -> int:
    """How many tokens two sets of together `sizes` tokens must share for that Jaccard: o / (sizes - o) >= t."""
    return ceil(threshold * sizes / (1 + threshold))


def _bounds(collections: Sequence[WordSets], threshold: Fraction) -> Bounds:
    assert 0 < threshold <= 1, threshold
    largest = max((int(np.diff(sets.starts_U1).max(initial=0)) for sets in collections), default=0)
    partner_S = np.array([ceil(threshold * size) for size in range(largest + 1)], np.int32)
    overlap_S = np.array([least_overlap(sizes, threshold) for sizes in range(2 * largest + 1)], np.int32)
    return Bounds(partner_S, overlap_S)


def _side(sets: WordSets, bounds: Bounds) -> Side:
    bits_U = _bits(sets.starts_U1, sets.tokens_T)
    lists = _prefix_lists(sets.starts_U1, sets.tokens_T, bounds.partner_S, len(sets.hash_V))
    return Side(sets.starts_U1, sets.tokens_T, bits_U, *lists)


def _jobs(sides: Sequence[Side]) -> list[TokensJob]:
    """Ranges of tokens with about as many entries each."""
    lengths = [np.diff(side.starts_V1) for side in (*sides, *sides)[:2]]
    # A list is compared with all of the other side's, or cut where it is long.
    work_V = np.minimum(lengths[0] * lengths[1], (lengths[0] + lengths[1]) * 4 * _ENTRY_COST_PAIRS) * _NS_PER_PAIR
    entries_V1 = np.sum([side.starts_V1 for side in sides], axis=0)
    wanted = np.arange(0, entries_V1[-1], _ENTRIES_PER_JOB)
    edges = np.unique([*np.searchsorted(entries_V1, wanted), len(entries_V1) - 1]).tolist()
    return [TokensJob(a, b, float(work_V[a:b].sum()) / 1e9) for a, b in itertools.pairwise(edges)]


def _listed(side: Side, first: int, last: int) -> Lists:
    """The lists of some tokens."""
    edges = side.starts_V1[first : last + 1]
    entries = slice(edges[0], edges[-1])
    return _lists(side, edges[:-1] - edges[0], edges[1:] - edges[0], side.set_E[entries], side.place_E[entries])


def _lists(side: Side, begin_L: np.ndarray, end_L: np.ndarray, set_E: np.ndarray, place_E: np.ndarray) -> Lists:
    size_E = (side.starts_U1[set_E + 1] - side.starts_U1[set_E]).astype(np.int32)
    return Lists(begin_L, end_L, set_E, place_E, size_E, side.bits_U[set_E])


def _wanted(lists: list[Lists]) -> list[Lists]:
    """Without the lists in which nothing meets."""
    left, right = lists[0], lists[-1]
    meets_L = (right.end_L - right.begin_L) >= (2 if left is right else 1)
    meets_L &= left.end_L > left.begin_L
    return [one._replace(begin_L=one.begin_L[meets_L], end_L=one.end_L[meets_L]) for one in lists]


def _worth_cutting(lists: list[Lists], bounds: Bounds, level: int) -> np.ndarray:
    """Whether comparing all with all in a list costs more than cutting it by the next shared token."""
    left, right = lists[0], lists[-1]
    entries_L = sum((_next_entries(one, bounds.partner_S, level) for one in lists), np.zeros(len(left.begin_L)))
    pairs_L = (left.end_L - left.begin_L).astype(np.float64) * (right.end_L - right.begin_L) / (3 - len(lists))
    return pairs_L > entries_L * _ENTRY_COST_PAIRS


def _pairs(
    sides: list[Side], lists: list[Lists], bounds: Bounds, level: int, is_cut_L: np.ndarray
) -> Iterator[PairBlock]:
    """The pairs of the lists; of lists that will be cut, those for which their tokens suffice."""
    is_same = len(sides) == 1
    left_P, right_P, overlap_P = (np.empty(_PAIRS_PER_BLOCK, kind) for kind in (np.int64, np.int64, np.int32))
    place = (0, 0, 0)
    while place[0] < len(is_cut_L):
        *place, found = _scan(
            sides[0], sides[-1], lists[0], lists[-1], bounds, level, is_cut_L, is_same, place, left_P, right_P, overlap_P
        )
        if found:
            yield left_P[:found].copy(), right_P[:found].copy(), overlap_P[:found].copy()


def _cut(
    sides: list[Side], lists: list[Lists], bounds: Bounds, level: int, is_cut_L: np.ndarray
) -> list[Lists]:
    """The lists of the next level: by list and next token."""
    grown = []
    for side, one in zip(sides, lists, strict=True):
        key_E, set_E, place_E = _next(side, one, bounds.partner_S, level, is_cut_L)
        order_E = np.argsort(key_E, kind="stable")  # sets still ascend
        grown.append((key_E[order_E], set_E[order_E], place_E[order_E]))
    left, right = grown[0][0], grown[-1][0]
    keys = left[:1] if not len(left) else left[np.append(True, left[1:] != left[:-1])]
    found = [(np.searchsorted(key_E, keys), np.searchsorted(key_E, keys, "right")) for key_E, *_ in grown]
    return [_lists(side, *edges, *entries[1:]) for side, edges, entries in zip(sides, found, grown, strict=True)]


@njit(cache=True, nogil=True)
def _bits(starts_U1, tokens_T):  # type: ignore[no-untyped-def]
    """For each set, 64 bits of which each says whether an odd number of its tokens hash to it."""
    bits_U = np.zeros(len(starts_U1) - 1, np.uint64)
    for u in range(len(bits_U)):
        for token in tokens_T[starts_U1[u] : starts_U1[u + 1]]:
            place = (np.uint64(token) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)
            bits_U[u] ^= np.uint64(1) << place
    return bits_U


@njit(cache=True, nogil=True)
def _prefix_lists(starts_U1, tokens_T, partner_S, vocabulary):  # type: ignore[no-untyped-def]
    """Under each token the sets that have it in their prefix, ascending, and where: starts_V1, set_E, place_E."""
    starts_V1 = np.zeros(vocabulary + 1, np.int64)
    for u in range(len(starts_U1) - 1):
        size = starts_U1[u + 1] - starts_U1[u]
        for place in range(size - partner_S[size] + 1):
            starts_V1[tokens_T[starts_U1[u] + place] + 1] += 1
    starts_V1 = np.cumsum(starts_V1)
    ends_V = starts_V1[:-1].copy()
    set_E, place_E = np.empty(starts_V1[-1], np.int32), np.empty(starts_V1[-1], np.int32)
    for u in range(len(starts_U1) - 1):
        size = starts_U1[u + 1] - starts_U1[u]
        for place in range(size - partner_S[size] + 1):
            token = tokens_T[starts_U1[u] + place]
            set_E[ends_V[token]], place_E[ends_V[token]] = u, place
            ends_V[token] += 1
    return starts_V1, set_E, place_E


@njit(cache=True, nogil=True)
def _next_places(size, place, partner_S, level):  # type: ignore[no-untyped-def]
    """Behind `place`, the end of the places where the next token can stand that a pair shares."""
    return max(min(size, size - partner_S[size] + 1 + level), place + 1)


@njit(cache=True, nogil=True)
def _next_entries(lists, partner_S, level):  # type: ignore[no-untyped-def]
    """How many entries each list becomes when it is cut."""
    entries_L = np.zeros(len(lists.begin_L), np.int64)
    for number in range(len(entries_L)):
        for e in range(lists.begin_L[number], lists.end_L[number]):
            entries_L[number] += _next_places(lists.size_E[e], lists.place_E[e], partner_S, level) - lists.place_E[e] - 1
    return entries_L


@njit(cache=True, nogil=True)
def _next(side, lists, partner_S, level, is_cut_L):  # type: ignore[no-untyped-def]
    """The entries of lists that are cut: a key of (list, next token), the set, the token's place."""
    count = np.int64(0)
    entries_L = _next_entries(lists, partner_S, level)
    for number in range(len(is_cut_L)):
        count += entries_L[number] if is_cut_L[number] else 0
    key_E, set_E, place_E = np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.int32)
    written = 0
    for number in range(len(is_cut_L)):
        if not is_cut_L[number]:
            continue
        for e in range(lists.begin_L[number], lists.end_L[number]):
            u, place = lists.set_E[e], lists.place_E[e]
            for after in range(place + 1, _next_places(lists.size_E[e], place, partner_S, level)):
                token = side.tokens_T[side.starts_U1[u] + after]
                key_E[written], set_E[written], place_E[written] = (np.int64(number) << 32) | token, u, after
                written += 1
    return key_E, set_E, place_E


@njit(cache=True, nogil=True)
def _scan(left, right, left_lists, right_lists, bounds, level, is_cut_L, is_same, at, left_P, right_P, overlap_P):  # type: ignore[no-untyped-def]
    """Write pairs from (list, entry of the left, entry of the right) on; return where to go on, and how many.

    The right sets come before the left ones where both are one side; they are written the lower first.
    """
    found = 0
    number, x, y = at
    while number < len(is_cut_L):
        low = right_lists.begin_L[number]
        x = max(x, left_lists.begin_L[number])
        while x < left_lists.end_L[number]:
            size_x, place_x, bits_x = left_lists.size_E[x], left_lists.place_E[x], left_lists.bits_E[x]
            end = x if is_same else right_lists.end_L[number]
            while low < end and right_lists.size_E[low] < bounds.partner_S[size_x]:
                low += 1
            y = max(y, low)
            while y < end:
                size_y = right_lists.size_E[y]
                if bounds.partner_S[size_y] > size_x:
                    break
                need = bounds.overlap_S[size_x + size_y]
                if is_cut_L[number] and need > level:
                    break  # as for all that come, which are no smaller
                differ = size_x + size_y - 2 * need
                more = need - level  # below 0: the pair came when fewer tokens sufficed
                room = min(size_x - place_x, size_y - right_lists.place_E[y]) - 1
                if 0 <= more <= room and _ones(bits_x ^ right_lists.bits_E[y]) <= differ:
                    if found == len(left_P):
                        return number, x, y, found
                    u, v = left_lists.set_E[x], right_lists.set_E[y]
                    overlap = _overlap_from(left, right, u, v, place_x, right_lists.place_E[y], level, need)
                    if overlap >= need:
                        left_P[found], right_P[found], overlap_P[found] = (v, u, overlap) if is_same else (u, v, overlap)
                        found += 1
                y += 1
            x += 1
            y = 0
        number += 1
        x = 0
    return number, 0, 0, found


@njit(cache=True, nogil=True)
def _overlap_from(left, right, u, v, place_u, place_v, level, need):  # type: ignore[no-untyped-def]
    """How many tokens the sets share; 0 if fewer than `need`, or if not just `level` of them up to the places."""
    tokens_u = left.tokens_T[left.starts_U1[u] : left.starts_U1[u + 1]]
    tokens_v = right.tokens_T[right.starts_U1[v] : right.starts_U1[v + 1]]
    behind = _overlap(tokens_u[place_u + 1 :], tokens_v[place_v + 1 :], need - level)
    if behind < need - level or _overlap(tokens_u[: place_u + 1], tokens_v[: place_v + 1], 0) != level:
        return 0
    return level + behind


@njit(cache=True, nogil=True)
def _overlap(a, b, need):  # type: ignore[no-untyped-def]
    """How many tokens two ascending runs share; where that is less than `need`, any lower number."""
    i, j, shared = 0, 0, 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
            if shared + len(a) - i < need:
                return shared
        else:
            j += 1
            if shared + len(b) - j < need:
                return shared
    return shared


@njit(cache=True, nogil=True)
def _ones(bits):  # type: ignore[no-untyped-def]
    """How many bits are 1, as int64."""
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))
