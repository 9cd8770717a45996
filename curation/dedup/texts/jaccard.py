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

U: distinct sets (curation/dedup/texts/word_sets.py); E: entries of lists; L: lists; S: sizes; P: pairs.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from curation.dedup.join import PairBlock, Values
from curation.dedup.texts.overlap import Bounds, bounds_of
from curation.dedup.texts.token_lists import Lists, Side, grown_entries, next_entries, parities, prefix_lists, scan
from curation.dedup.texts.word_sets import WordSets

_PAIRS_PER_BLOCK = 1 << 20
_ENTRIES_PER_JOB = 1 << 18
_ENTRY_COST_PAIRS = 64  # measured: making and sorting an entry takes as long as refusing so many pairs by their bits
_NS_PER_PAIR = 1.0


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
    bounds = bounds_of([sets], threshold)
    side = _side(sets, bounds)
    return (*bounds, *side), _jobs([side])


def cross_join(sets: WordSets, others: WordSets, threshold: Fraction) -> tuple[Values, list[TokensJob]]:
    """The same for pairs of a set and one of the others; both must number tokens alike (`WordSets.of_texts`)."""
    assert len(sets.hash_V) == len(others.hash_V), "the sets come from different calls of word_sets"
    bounds = bounds_of([sets, others], threshold)
    sides = [_side(each, bounds) for each in (sets, others)]
    return (*bounds, *sides[0], *sides[1]), _jobs(sides)


def join_by_some(
    collections: Sequence[WordSets], threshold: Fraction, is_listed_V: np.ndarray
) -> tuple[Values, list[TokensJob]]:
    """Of a self-join or a cross join the pairs whose first shared token is one of some, and nothing is done for others.

    Sets are in the order of their sizes, and all collections number tokens alike.
    """
    bounds = bounds_of(collections, threshold)
    sides = [_listing(_side(sets, bounds), is_listed_V) for sets in collections]
    return (*bounds, *(array for side in sides for array in side)), _jobs(sides)


def _listing(side: Side, is_listed_V: np.ndarray) -> Side:
    """With the lists of some tokens only; those of others are empty."""
    lengths_V = np.diff(side.starts_V1)
    is_listed_E = np.repeat(is_listed_V, lengths_V)
    starts_V1 = np.concatenate([[0], np.cumsum(lengths_V * is_listed_V)])
    return side._replace(starts_V1=starts_V1, set_E=side.set_E[is_listed_E], place_E=side.place_E[is_listed_E])


def _side(sets: WordSets, bounds: Bounds) -> Side:
    bits_U = parities(sets.starts_U1, sets.tokens_T)
    lists = prefix_lists(sets.starts_U1, sets.tokens_T, bounds.partner_S, len(sets.hash_V))
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
    entries_L = sum((next_entries(one, bounds.partner_S, level) for one in lists), np.zeros(len(left.begin_L)))
    pairs_L = (left.end_L - left.begin_L).astype(np.float64) * (right.end_L - right.begin_L) / (3 - len(lists))
    return pairs_L > entries_L * _ENTRY_COST_PAIRS


def _pairs(
    sides: list[Side], lists: list[Lists], bounds: Bounds, level: int, is_cut_L: np.ndarray
) -> Iterator[PairBlock]:
    """The pairs of the lists; of lists that will be cut, those for which their tokens suffice."""
    is_same = len(sides) == 1
    block = tuple(np.empty(_PAIRS_PER_BLOCK, kind) for kind in (np.int64, np.int64, np.int32))
    at = (0, 0, 0)
    while at[0] < len(is_cut_L):
        both = (sides[0], sides[-1]), (lists[0], lists[-1])
        *at, found = scan(*both, is_same, bounds, level, is_cut_L, tuple(at), block)
        if found:
            left_P, right_P, overlap_P = block
            yield left_P[:found].copy(), right_P[:found].copy(), overlap_P[:found].copy()


def _cut(sides: list[Side], lists: list[Lists], bounds: Bounds, level: int, is_cut_L: np.ndarray) -> list[Lists]:
    """The lists of the next level: by list and next token."""
    grown = []
    for side, one in zip(sides, lists, strict=True):
        key_E, set_E, place_E = grown_entries(side, one, bounds.partner_S, level, is_cut_L)
        order_E = np.argsort(key_E, kind="stable")  # sets still ascend
        grown.append((key_E[order_E], set_E[order_E], place_E[order_E]))
    key_E = grown[0][0]
    key_L = key_E[np.append(True, key_E[1:] != key_E[:-1])[: len(key_E)]]
    edges = [(np.searchsorted(key_E, key_L), np.searchsorted(key_E, key_L, "right")) for key_E, *_ in grown]
    return [_lists(side, *edge, *entries[1:]) for side, edge, entries in zip(sides, edges, grown, strict=True)]
