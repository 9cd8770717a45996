"""Hash codes that outgrow memory, sent to where they meet: table by table, by the bits that are a table's key.

N: codes of a file; M: codes of a job; W: words of 64 bits in a code, 1 or 4; G: partitions; P: pairs. Codes are a few
bytes each, so it takes billions before workers cannot all hold them; then each table is a round of its own: files of
codes are sent by key, partitions are joined, and what was sent goes before the next table comes.

A row of a file is a code's words and its position. A partition that is too large, because many codes agree in a key, is
cut into tiles (tiles.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from curation.dedup.components import thinned
from curation.dedup.exchange import leave, results, rows_of
from curation.dedup.hashes.blocks import Table, work_s
from curation.dedup.hashes.buckets import mixed
from curation.dedup.hashes.distinct_codes import as_words
from curation.dedup.hashes.eight_codes import LANES
from curation.dedup.hashes.hamming import EqualJob, equal_s, rows_and_candidates, table_pairs
from curation.dedup.join import FindPairs, Job, PairBlock, Values
from curation.dedup.tiles import Partitions, Slices, pairs_of_tiles

_ROWS_PER_FILE = 1 << 22
_S_PER_CODE = 2e-8  # measured: hashing, sorting, writing


@dataclass(frozen=True)
class SendCodes:
    """Leave the rows of a file in the order of partitions, by a hash of the key; gives how many each gets."""

    file: Path
    key_W: np.ndarray
    partitions: int
    to: Path
    work: float

    def run(self, values: Values) -> np.ndarray:
        """Memory goes with the file."""
        rows_NX = rows_of(self.file)
        partition_N = _partitions(np.ascontiguousarray(rows_NX.T), self.key_W, self.partitions)
        rows_NX = rows_NX[np.argsort(partition_N, kind="stable")]
        leave(self.to, [rows_NX], len(rows_NX), rows_NX)
        return np.bincount(partition_N, minlength=self.partitions)


@dataclass(frozen=True)
class PartitionJob:
    """The pairs that meet in a table, inside the left or between left and right."""

    table: Table
    distance: int
    forest: bool  # of the pairs only as many as connect what all connect
    left: Slices
    right: Slices | None
    work: float

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Its pairs (left_P, right_P, distance_P uint8) of positions; left < right in a self-join."""
        sides = [_read(slices) for slices in (self.left, self.right) if slices is not None]
        found = table_pairs(self.table, [words_XN for words_XN, _ in sides], self.distance)
        number_L, number_R = sides[0][1], sides[-1][1]
        shift = 0 if self.right is None else len(number_L)
        for left_P, right_P, distance_P in thinned(found, shift + len(number_R), shift) if self.forest else found:
            yield number_L[left_P], number_R[right_P], distance_P


def rounds(
    tables: Sequence[Table],
    values: Values,
    distance: int,
    partition_bytes: int,
    folder: Path,
    find: FindPairs,
    *,
    forest: bool,
) -> Iterator[tuple[Sequence[Job], Values]]:
    """Jobs that find the pairs within a distance, with what they read: of one table after the other.

    Of two sets the equal codes that are exact-only come last; that job reads all codes, once, and sorts nothing.
    """
    files = [_spilled(*side, folder, number) for number, side in enumerate(zip(values[::2], values[1::2], strict=True))]
    row_bytes = 8 * (as_words(values[0]).shape[1] + 1)
    rows, candidates = rows_and_candidates(values)
    partitions = max(-(-rows * row_bytes // partition_bytes), 1)
    for table in tables:
        sides = [_sent(side, table, partitions, find) for side in files]
        work = work_s(table, rows, candidates) / partitions
        jobs: list[Job] = []
        for partition in range(partitions):
            for left, right in pairs_of_tiles(sides, partition, max(partition_bytes // row_bytes, 2)):
                jobs.append(PartitionJob(table, distance, forest, left, right, work))
        yield jobs, ()
        for side in sides:
            for file in side.files:
                file.unlink()
    if len(values) == 4 and (distance == 0 or values[1].any() or values[3].any()):
        yield [EqualJob(among_exact_only=distance > 0, work=equal_s(values))], values


def _spilled(codes_N: np.ndarray, exact_only_N: np.ndarray, folder: Path, side: int) -> list[Path]:
    """The codes that may have neighbours, in files."""
    files = []
    for number, start in enumerate(range(0, max(len(codes_N), 1), _ROWS_PER_FILE)):
        some = slice(start, start + _ROWS_PER_FILE)
        positions = start + np.flatnonzero(~exact_only_N[some])
        rows_NX = np.column_stack([as_words(codes_N)[positions], positions.astype(np.uint64)])
        files.append(folder / f"codes-{side}-{number:05d}")
        leave(files[-1], [rows_NX], len(rows_NX), rows_NX)
    return files


def _sent(files: list[Path], table: Table, partitions: int, find: FindPairs) -> Partitions:
    errands = [
        SendCodes(file, table.key_W, partitions, file.with_name(f"{file.name}-by-key"), _S_PER_CODE * _ROWS_PER_FILE)
        for file in files
    ]
    return Partitions(tuple(errand.to for errand in errands), np.stack(results(find, errands)))


def _read(slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    """Codes as comparing.py has them, numbered from 0 on, and their positions."""
    rows_MX = np.concatenate([rows_of(file, begin, end) for file, begin, end in slices])
    words_XM = np.empty((rows_MX.shape[1], len(rows_MX) + LANES), np.uint64)
    words_XM[:-1, :-LANES] = rows_MX[:, :-1].T
    words_XM[-1, :-LANES] = np.arange(len(rows_MX))
    return words_XM, rows_MX[:, -1].astype(np.int64)


@njit(cache=True, nogil=True)
def _partitions(words_XN, key_W, partitions):  # type: ignore[no-untyped-def]
    """The partition of each code: the high bits of the hash are left for buckets."""
    partition_N = np.empty(words_XN.shape[1], np.int64)
    for n in range(len(partition_N)):
        low = mixed(words_XN, n, key_W) & np.uint64(0xFFFFFFFF)
        partition_N[n] = np.int64(low % np.uint64(partitions))
    return partition_N
