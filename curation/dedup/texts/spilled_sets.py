"""The distinct word sets of texts that outgrow memory, in files: one for each range of hashes of sets.

N: texts; M: sets on their way; U: distinct sets; T: tokens of all sets; S: shares; R: ranges. As with vectors, shares
are collapsed first, then ranges. Tokens are codes of words (spilled_words.py), ascending in each set. Sets are numbered
by a hash of their words, so by what they are.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.dedup.exchange import edges_of_ranges, leave, numbers_by_share, results, rows_of, slices_of_range
from curation.dedup.join import FindPairs, Values
from curation.dedup.ragged import Ragged, forget, joined, ragged_of
from curation.dedup.texts.spilled_words import OwnCodes, SharePaths, SplitShare, codes_of, frequent_from, own_codes
from curation.dedup.texts.word_sets import sort_each
from curation.dedup.texts.words import binaries, bytes_of

_S_PER_TOKEN = 5e-8  # measured: sorting, hashing, collapsing


@dataclass(frozen=True)
class SpilledSets:
    """U distinct sets: those of range r have the numbers `starts_R1[r]` to `starts_R1[r + 1]`; `size_U` (int32)."""

    folder: Path
    starts_R1: tuple[int, ...]
    size_U: np.ndarray

    def __len__(self) -> int:
        return self.starts_R1[-1]

    @property
    def ranges(self) -> list[tuple[Path, int, int]]:
        """Of each range the file with its lists of codes, and the numbers of its sets: `begin` to `end`."""
        return [(_range_file(self.folder, r), *ends) for r, ends in enumerate(itertools.pairwise(self.starts_R1))]


@dataclass(frozen=True)
class CodeShare:
    """Leave the sets of a share as codes, in the order of the sets' hashes, and these beside them.

    Gives where each set went as place_U, and where the ranges begin and end as edges_R1. The values are the words with
    codes of their own.
    """

    share: SharePaths
    to: Path
    ranges: int
    work: float

    def run(self, values: Values) -> tuple[np.ndarray, np.ndarray]:
        """Memory goes with the share."""
        code_V, hash_V = codes_of(ragged_of(self.share.words), values)
        sets = ragged_of(self.share.sets)
        hash_U = _hashes_of_sets(sets.starts_X1, sets.values, hash_V)
        codes = Ragged(sets.starts_X1, code_V[sets.values])
        sort_each(*codes)
        order_U = np.argsort(hash_U, kind="stable")
        codes.taken(order_U).leave(self.to)
        leave(_hashes_beside(self.to), [hash_U[order_U]], len(hash_U), hash_U)
        place_U = np.empty(len(order_U), np.int64)
        place_U[order_U] = np.arange(len(order_U))
        return place_U, edges_of_ranges(hash_U[order_U], self.ranges)


@dataclass(frozen=True)
class CollapseSets:
    """Collapse the sets of a range: lists `begin` to `end` of each of the shares' files.

    Gives a digest of the distinct ones, the number of each as group_M, and their sizes.
    """

    shares: tuple[tuple[Path, int, int], ...]
    to: Path
    work: float

    def run(self, values: Values) -> tuple[str, np.ndarray, np.ndarray]:
        """Memory goes with the range."""
        none = Ragged(np.zeros(1, np.int64), np.empty(0, np.uint64))
        sets = joined([none, *(ragged_of(path, begin, end) for path, begin, end in self.shares)])
        hash_M = np.concatenate([none.values, *(rows_of(_hashes_beside(path), a, b) for path, a, b in self.shares)])
        coded = binaries(sets.values.astype(">u8"), 8 * sets.starts_X1).dictionary_encode()
        group_M = coded.indices.to_numpy()
        hash_U = np.empty(len(coded.dictionary), np.uint64)
        hash_U[group_M] = hash_M
        ordered = pa.table({"hash": hash_U, "codes": coded.dictionary})
        order_U = pc.sort_indices(ordered, sort_keys=[("hash", "ascending"), ("codes", "ascending")]).to_numpy()
        number_U = np.empty(len(order_U), np.int64)
        number_U[order_U] = np.arange(len(order_U))
        codes_B, ends_U1 = bytes_of(coded.dictionary)
        distinct = Ragged(ends_U1 // 8, codes_B.view(">u8").astype(np.uint64)).taken(order_U)
        distinct.leave(self.to)
        size_U = distinct.lengths_X.astype(np.int32)
        named = hashlib.sha256(hash_U[order_U].tobytes() + size_U.tobytes()).hexdigest()
        return named, number_U[group_M], size_U


def spill(
    tables: Sequence[Sequence[tuple[pa.Array, ...]]], ranges: int, folders: Sequence[Path], find: FindPairs
) -> list[tuple[SpilledSets, np.ndarray, str]]:
    """The distinct sets of one table's texts or two's, in shares of large strings, with one code for each word.

    For each table: the sets in files of its folder, each text's number among them as group_N (-1: no word), and a
    digest. Numbers and digests do not hang on how texts are shared out; digests do on the number of ranges.
    """
    paths = [
        [SharePaths.at(folder / f"share-{number:06d}") for number in range(len(shares))]
        for shares, folder in zip(tables, folders, strict=True)
    ]
    every = [both for one in zip(tables, paths, strict=True) for both in zip(*one, strict=True)]
    split = results(find, [SplitShare(*one, ranges) for one in every])
    own = _own(split, [to for _, to in every], ranges, find)
    found, at = [], 0
    for shares, folder in zip(paths, folders, strict=True):
        found.append(_collapsed(shares, split[at : at + len(shares)], own, ranges, folder, find))
        at += len(shares)
    return found


def _own(
    split: list[tuple[np.ndarray, np.ndarray, int]], paths: list[SharePaths], ranges: int, find: FindPairs
) -> Values:
    """The words with codes of their own."""
    edges_SR1 = np.stack([edges_R1 for _, edges_R1, _ in split])
    frequent = frequent_from(sum(words for *_, words in split))
    errands = []
    for r in range(ranges):
        shares = tuple(
            (path, int(a), int(b)) for path, (a, b) in zip(paths, edges_SR1[:, r : r + 2], strict=True) if a < b
        )
        errands.append(OwnCodes(shares, frequent, _S_PER_TOKEN * sum(b - a for _, a, b in shares)))
    return own_codes(results(find, errands))


def _collapsed(
    paths: list[SharePaths],
    split: list[tuple[np.ndarray, np.ndarray, int]],
    own: Values,
    ranges: int,
    folder: Path,
    find: FindPairs,
) -> tuple[SpilledSets, np.ndarray, str]:
    coded = [share.sets.with_name(f"{share.sets.name}-codes") for share in paths]
    works_s = [_S_PER_TOKEN * words for *_, words in split]
    coding = [CodeShare(share, to, ranges, work) for share, to, work in zip(paths, coded, works_s, strict=True)]
    places, edges = zip(*results(find, coding, own), strict=True)
    edges_SR1 = np.stack(edges)
    work = sum(works_s) / ranges
    errands = [CollapseSets(slices_of_range(coded, edges_SR1, r), _range_file(folder, r), work) for r in range(ranges)]
    digests, groups, sizes = zip(*results(find, errands), strict=True)
    for share, codes in zip(paths, coded, strict=True):
        for lists in (share.words, share.sets, codes):
            forget(lists)
        share.frequency.unlink()
        _hashes_beside(codes).unlink()
    sets = SpilledSets(folder, (0, *itertools.accumulate(map(len, sizes))), np.concatenate(sizes))
    number_SM = numbers_by_share(groups, sets.starts_R1, edges_SR1)
    group_N = [
        np.append(number_M[place_U], -1)[set_N]  # -1 takes the last
        for number_M, place_U, (set_N, *_) in zip(number_SM, places, split, strict=True)
    ]
    return sets, np.concatenate(group_N), hashlib.sha256("".join(digests).encode()).hexdigest()


def _range_file(folder: Path, number: int) -> Path:
    return folder / f"range-{number:04d}"


def _hashes_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-hashes")


@njit(cache=True, nogil=True)
def _hashes_of_sets(starts_U1, tokens_T, hash_V):  # type: ignore[no-untyped-def]
    """A hash of each set: the sum of its words' hashes, which no order changes, mixed as splitmix64 does."""
    hash_U = np.empty(len(starts_U1) - 1, np.uint64)
    for u in range(len(hash_U)):
        value = np.uint64(0)
        for token in tokens_T[starts_U1[u] : starts_U1[u + 1]]:
            word = hash_V[token]
            value += (word ^ (word >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hash_U[u] = value ^ (value >> np.uint64(27))
    return hash_U
