"""Word sets that outgrow memory, sent to where they are compared: by the words of their prefixes.

U: distinct sets; M: sets of a job; V: distinct words of a job; G: partitions; S: sizes; P: pairs. Two sets of at least
the threshold's Jaccard share a word of their prefixes (jaccard.py). Words fall into partitions by hash; a set is sent,
with all its words, to each partition that a word of its prefix is in. A job lists sets under the words of its partition
only, and takes a pair only where the first word that both share is listed: so each pair is found once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numba import njit

from curation.dedup.components import thinned
from curation.dedup.exchange import leave, rows_of
from curation.dedup.join import PairBlock, Values, pairs_of
from curation.dedup.ragged import Ragged, joined, ragged_of
from curation.dedup.texts.jaccard import join_by_some
from curation.dedup.texts.word_sets import WordSets
from curation.dedup.tiles import Partitions, Slices, pairs_of_tiles

S_PER_WORD = 2e-8  # measured, of sending and of joining


@dataclass(frozen=True)
class Send:
    """Leave the sets of a range in the order of partitions, and their numbers beside them.

    Gives how many sets each partition gets, and how many words these have: int64 of shape (2, G). The value is
    partner_S, the least size of a partner of a set of each size.
    """

    sets: Path
    first: int  # the number of the range's first set
    to: Path
    partitions: int
    work: float

    def run(self, values: Values) -> np.ndarray:
        """Memory goes with the range, and with how often its sets are sent."""
        (partner_S,) = values
        sets = ragged_of(self.sets)
        row_M, partition_M = _sent(*sets, partner_S, self.partitions)
        row_M = row_M[np.argsort(partition_M, kind="stable")]
        sets.taken(row_M).leave(self.to)
        leave(numbers_beside(self.to), [row_M + self.first], len(row_M), row_M)
        words_G = np.bincount(np.sort(partition_M), sets.lengths_X[row_M], self.partitions)
        return np.stack([np.bincount(partition_M, minlength=self.partitions), words_G.astype(np.int64)])


@dataclass(frozen=True)
class WordsJob:
    """The pairs whose first shared word is in a partition: inside the left, or between left and right."""

    threshold: Fraction
    partition: int
    partitions: int
    forest: bool  # of the pairs only as many as connect what all connect
    left: Slices  # of files as `Send` leaves them
    right: Slices | None
    within: bool  # both are of one set
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Blocks of left_P, right_P (numbers of the pool; left < right within one set) and overlap_P (int32)."""
        sides = [_read(slices) for slices in (self.left, self.right) if slices is not None]
        code_V, sets = _renumbered([codes for codes, _ in sides])
        is_listed_V = _partitions(code_V, self.partitions) == self.partition
        listed, jobs = join_by_some(sets, self.threshold, is_listed_V)
        found = pairs_of(jobs, listed)
        number_L, number_R = sides[0][1], sides[-1][1]
        shift = 0 if self.right is None else len(number_L)
        for left_P, right_P, overlap_P in thinned(found, shift + len(number_R), shift) if self.forest else found:
            left_P, right_P = number_L[left_P], number_R[right_P]
            if self.within:
                left_P, right_P = np.minimum(left_P, right_P), np.maximum(left_P, right_P)
            yield left_P, right_P, overlap_P


def words_jobs(
    threshold: Fraction, sides: Sequence[Partitions], words_G: np.ndarray, most_words: int, *, forest: bool
) -> Iterator[WordsJob]:
    """Jobs of about `most_words` words each; the sets of partition g have `words_G[g]`."""
    for partition in np.flatnonzero(words_G).tolist():
        sets, words = sum(side.rows(partition) for side in sides), int(words_G[partition])
        tiles = pairs_of_tiles(sides, partition, sets if words <= most_words else max(sets * most_words // words, 2))
        for left, right in tiles:
            yield WordsJob(
                threshold,
                partition,
                len(words_G),
                forest,
                left,
                right,
                len(sides) == 1,
                S_PER_WORD * min(words, most_words),
            )


def numbers_beside(path: Path) -> Path:
    """Where the numbers of the sets of a file lie."""
    return path.with_name(f"{path.name}-numbers")


def _read(slices: Slices) -> tuple[Ragged, np.ndarray]:
    """Sets in the order of their sizes, as lists want them, and their numbers."""
    codes = joined([ragged_of(path, begin, end) for path, begin, end in slices])
    number_M = np.concatenate([rows_of(numbers_beside(path), begin, end) for path, begin, end in slices])
    order_M = np.argsort(codes.lengths_X, kind="stable")
    return codes.taken(order_M), number_M[order_M]


def _renumbered(sides: list[Ragged]) -> tuple[np.ndarray, list[WordSets]]:
    """The distinct codes in order as code_V, and sets of their numbers."""
    code_T = np.sort(np.concatenate([codes.values for codes in sides]))
    code_V = code_T[np.append(True, code_T[1:] != code_T[:-1])[: len(code_T)]]
    none_N = np.empty(0, np.int64)
    return code_V, [
        WordSets(codes.starts_X1, np.searchsorted(code_V, codes.values).astype(np.int32), none_N, code_V)
        for codes in sides
    ]


@njit(inline="always")
def _partition(code, partitions):  # type: ignore[no-untyped-def]
    return np.int64(((code * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) % np.uint64(partitions))


@njit(cache=True, nogil=True)
def _partitions(code_V, partitions):  # type: ignore[no-untyped-def]
    """The partition of each code."""
    partition_V = np.empty(len(code_V), np.int64)
    for v in range(len(code_V)):
        partition_V[v] = _partition(code_V[v], partitions)
    return partition_V


@njit(cache=True, nogil=True)
def _sent(starts_U1, codes_T, partner_S, partitions):  # type: ignore[no-untyped-def]
    """Which set goes to which partition, each once: row_M and partition_M."""
    prefixes = 0
    for u in range(len(starts_U1) - 1):
        size = starts_U1[u + 1] - starts_U1[u]
        prefixes += size - partner_S[size] + 1
    row_M, partition_M = np.empty(prefixes, np.int64), np.empty(prefixes, np.int64)
    sent = 0
    for u in range(len(starts_U1) - 1):
        size, begun = starts_U1[u + 1] - starts_U1[u], sent
        for code in codes_T[starts_U1[u] : starts_U1[u] + size - partner_S[size] + 1]:
            partition = _partition(code, partitions)
            is_new = True
            for m in range(begun, sent):
                is_new &= partition_M[m] != partition
            if is_new:
                row_M[sent], partition_M[sent] = u, partition
                sent += 1
    return row_M[:sent].copy(), partition_M[:sent].copy()
