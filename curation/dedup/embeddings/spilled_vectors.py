"""The distinct vectors of a pool that outgrows memory, in files: one for each range of hashes.

N: rows; M: vectors on their way; U: distinct vectors; D: numbers per vector; S: shares; R: ranges of hashes. First
every share of the rows is collapsed alone and left in the order of hashes, so that a vector that is everywhere is sent
once by each; then every range is collapsed, of its rows in all shares. The result is what `distinct` gives for all
rows at once: the same vectors with the same numbers.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.dedup.embeddings.distinct_vectors import distinct_by_hash
from curation.dedup.exchange import edges_of_ranges, leave, numbers_by_share, results, rows_of, slices_of_range
from curation.dedup.join import FindPairs, Values

_S_PER_NUMBER = 3e-9  # measured: reading, hashing, sorting
Piece = tuple[np.ndarray, np.ndarray]  # vectors_ND (float16), is_valid_N


class NumberedFile(NamedTuple):
    """The vectors of a file; the first of them has the number `begin` in its pool, the last `end` - 1."""

    file: Path
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """How many vectors it has."""
        return self.end - self.begin


@dataclass(frozen=True)
class SpilledVectors:
    """U distinct vectors: range r has those with the numbers `starts_R1[r]` to `starts_R1[r + 1]`."""

    folder: Path
    starts_R1: tuple[int, ...]
    width: int

    def __len__(self) -> int:
        return self.starts_R1[-1]

    @property
    def ranges(self) -> list[NumberedFile]:
        """The file of each range."""
        ends = enumerate(itertools.pairwise(self.starts_R1))
        return [NumberedFile(range_file(self.folder, r), begin, end) for r, (begin, end) in ends]

    def rows(self, begin: int, end: int) -> np.ndarray:
        """The vectors with the numbers `begin` to `end`."""
        found = [np.empty((0, self.width), np.float16)]
        for file, start, stop in self.ranges:
            low, high = max(begin, start), min(end, stop)
            if low < high:
                found.append(rows_of(file, low - start, high - start))
        return np.concatenate(found)

    def taken(self, numbers_M: np.ndarray) -> np.ndarray:
        """The vectors with those numbers: few, for each is sought."""
        return np.concatenate([self.rows(0, 0), *(self.rows(number, number + 1) for number in numbers_M.tolist())])


def range_file(folder: Path, number: int) -> Path:
    """Where the vectors of a range of hashes lie, float16 of shape (vectors, D)."""
    return folder / f"range-{number:04d}"


@dataclass(frozen=True)
class CollapseShare:
    """Collapse the vectors of a share, and leave them in the order of hashes.

    Gives each row's vector among those of the share as group_N (-1: none), and where the ranges begin and end in the
    file as edges_R1.
    """

    pieces: tuple[Piece, ...]
    file: Path
    ranges: int

    @property
    def work(self) -> float:
        """By the numbers of all vectors."""
        return _S_PER_NUMBER * sum(vectors_ND.size for vectors_ND, _ in self.pieces)

    def run(self, values: Values) -> tuple[np.ndarray, np.ndarray]:
        """Memory goes with the share."""
        vectors_ND = np.concatenate([vectors_ND for vectors_ND, _ in self.pieces])
        vectors_ND[~np.concatenate([is_valid_N for _, is_valid_N in self.pieces])] = 0
        vectors_MD, group_N, hash_M = distinct_by_hash(vectors_ND)
        leave(self.file, [vectors_MD], len(vectors_MD), vectors_MD)
        return group_N, edges_of_ranges(hash_M, self.ranges)


@dataclass(frozen=True)
class CollapseRange:
    """Collapse the vectors of a range of hashes: rows `begin` to `end` of each of the shares' files.

    Gives how many distinct ones there are, the SHA-256 of their bytes, and the number of each as group_M.
    """

    shares: tuple[tuple[Path, int, int], ...]
    width: int
    file: Path

    @property
    def work(self) -> float:
        """By the numbers of all vectors."""
        return _S_PER_NUMBER * self.width * sum(end - begin for _, begin, end in self.shares)

    def run(self, values: Values) -> tuple[int, str, np.ndarray]:
        """Memory goes with the range."""
        none_0D = np.empty((0, self.width), np.float16)
        vectors_MD = np.concatenate([none_0D, *(rows_of(path, begin, end) for path, begin, end in self.shares)])
        vectors_UD, group_M, _ = distinct_by_hash(vectors_MD)
        leave(self.file, [vectors_UD], len(vectors_UD), vectors_UD)
        return len(vectors_UD), hashlib.sha256(np.ascontiguousarray(vectors_UD).data).hexdigest(), group_M


def spill(
    shares: Sequence[tuple[Piece, ...]], ranges: int, folder: Path, find: FindPairs
) -> tuple[SpilledVectors, np.ndarray, str]:
    """The distinct vectors in files of the folder, each row's number among them as group_N (-1: none), and a digest.

    The shares' vectors have one width. Numbers do not hang on how rows are shared out, nor on how many ranges there
    are; the digest does on the latter.
    """
    width = shares[0][0][0].shape[1]
    files = [folder / f"share-{number:06d}" for number in range(len(shares))]
    collapsed = results(find, [CollapseShare(*one, ranges) for one in zip(shares, files, strict=True)])
    edges_SR1 = np.stack([edges_R1 for _, edges_R1 in collapsed])
    errands = [CollapseRange(slices_of_range(files, edges_SR1, r), width, range_file(folder, r)) for r in range(ranges)]
    counts, digests, groups = zip(*results(find, errands), strict=True)
    for file in files:
        file.unlink()
    vectors = SpilledVectors(folder, (0, *itertools.accumulate(counts)), width)
    number_SM = numbers_by_share(groups, vectors.starts_R1, edges_SR1)
    found = zip(number_SM, (group_N for group_N, _ in collapsed), strict=True)
    group_N = np.concatenate([np.append(number_M, -1)[group_N] for number_M, group_N in found])  # -1 takes the last
    return vectors, group_N, hashlib.sha256("".join(digests).encode()).hexdigest()
