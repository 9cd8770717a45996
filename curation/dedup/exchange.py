"""How the jobs of a join hand over what memory does not hold: in files, of which a later job reads the rows it needs.

A join of values that outgrow memory goes in stages. The jobs of one stage each read a share, and leave files whose rows
lie in the order of partitions; a job of the next stage reads its rows of every such file, and no others. So what a job
holds goes with its share or its partition, never with the pool. The folder must be one that all workers see: the
store's own for temporary files.

A file is complete or not there: it is written under another name first. So a job that is killed and done again, or
done twice at once, changes nothing.
"""

import contextlib
import itertools
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from curation.dedup.join import FindPairs, Job, PairBlock, Values

_PAIRS_PER_BLOCK = 1 << 18


class Errand(Protocol):
    """A share of a stage that is no search for pairs: small and picklable, as a job is."""

    @property
    def work(self) -> float:
        """How long it may take, in seconds."""

    def run(self, values: Values) -> Any:
        """Do it; what it gives is small, the rest lies in files."""


@dataclass(frozen=True)
class _AsJob:
    """An errand as a job that finds one thing, what the errand gives: so whoever runs jobs runs errands."""

    number: int
    errand: Errand

    @property
    def work(self) -> float:
        return self.errand.work

    def pairs(self, values: Values) -> Iterator[Any]:
        yield self.number, self.errand.run(values), None


@dataclass(frozen=True)
class _PairsToFile:
    """A job whose pairs go to a file, so that nobody holds all of them."""

    job: Job
    path: Path

    @property
    def work(self) -> float:
        return self.job.work

    def run(self, values: Values) -> bool:
        """Whether there are any: many jobs find none, and leave no file."""
        blocks = _gathered(self.job.pairs(values))
        first = next(blocks, None)
        if first is None:
            return False
        with new_file(self.path) as file:
            for block in itertools.chain([first], blocks):
                for array in block:
                    np.save(file, array)
        return True


def results(find: FindPairs, errands: Sequence[Errand], values: Values = ()) -> list[Any]:
    """What each of the errands gives, in their order, in whichever order and wherever they are done."""
    found: dict[int, Any] = {}
    for number, result, _ in find([_AsJob(number, errand) for number, errand in enumerate(errands)], values):
        found[number] = result  # type: ignore[index]
    return [found[number] for number in range(len(errands))]


def pairs_by_files(find: FindPairs, jobs: Sequence[Job], values: Values, folder: Path) -> Iterator[PairBlock]:
    """The pairs of all jobs in the jobs' order, in blocks of a few megabytes that come from files in the folder.

    Neither the jobs nor the caller hold all pairs of a job at once; a file goes when it was read.
    """
    paths = [folder / f"pairs-{number:06d}" for number in range(len(jobs))]
    wrote = results(find, [_PairsToFile(*both) for both in zip(jobs, paths, strict=True)], values)
    for path in itertools.compress(paths, wrote):
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            while file.tell() < end:
                yield np.load(file), np.load(file), np.load(file)
        path.unlink()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which has its name when all of it is there."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "wb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def leave(path: Path, tiles: Iterable[np.ndarray], rows: int, like: np.ndarray) -> None:
    """Write `rows` rows, which come in tiles, as one array of numpy's format; rows and numbers are `like` that array's.

    Raises OSError where the disk is full.
    """
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False}
    with new_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *like.shape[1:])})
        for tile in tiles:
            file.write(np.ascontiguousarray(tile).data)


def rows_of(path: Path, begin: int = 0, end: int | None = None) -> np.ndarray:
    """Rows `begin` to `end` of an array in a file, read and not mapped: what a job holds is what it reads."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        (rows, *width), _, kind = np.lib.format.read_array_header_1_0(file)
        count = (rows if end is None else end) - begin
        numbers = math.prod(width)
        file.seek(begin * numbers * kind.itemsize, os.SEEK_CUR)
        return np.fromfile(file, kind, count * numbers).reshape(count, *width)


def edges_of_ranges(hash_M: np.ndarray, ranges: int) -> np.ndarray:
    """Where each of so many equal ranges of 64-bit hashes begins and ends among ascending ones, as int64 edges_R1."""
    bounds = np.array([-(-(number << 64) // ranges) for number in range(1, ranges)], np.uint64)
    return np.concatenate([[0], np.searchsorted(hash_M, bounds), [len(hash_M)]]).astype(np.int64)


def slices_of_range(files: Sequence[Path], edges_SR1: np.ndarray, number: int) -> tuple[tuple[Path, int, int], ...]:
    """The files that have rows of a range, and where those begin and end in each."""
    ends = edges_SR1[:, number : number + 2].tolist()
    return tuple((file, begin, end) for file, (begin, end) in zip(files, ends, strict=True) if begin < end)


def numbers_by_share(groups: Iterable[np.ndarray], starts_R1: Sequence[int], edges_SR1: np.ndarray) -> list[np.ndarray]:
    """What each row that a share left became: `groups` number it in its range, whose numbers begin at `starts_R1`."""
    number_SM = [np.empty(edges_R1[-1], np.int64) for edges_R1 in edges_SR1]
    for r, group_M in enumerate(groups):
        at = 0
        for number_M, (begin, end) in zip(number_SM, edges_SR1[:, r : r + 2], strict=True):
            number_M[begin:end] = starts_R1[r] + group_M[at : at + end - begin]
            at += end - begin
    return number_SM


def _gathered(blocks: Iterable[PairBlock]) -> Iterator[PairBlock]:
    """The same pairs in blocks that are worth writing."""
    held: list[PairBlock] = []
    pairs = 0
    for block in blocks:
        held.append(block)
        pairs += len(block[0])
        if pairs >= _PAIRS_PER_BLOCK:
            yield _joined(held)
            held, pairs = [], 0
    if pairs:
        yield _joined(held)


def _joined(blocks: list[PairBlock]) -> PairBlock:
    left_P, right_P, measure_P = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    return left_P, right_P, measure_P
