"""Lists of different lengths, as words and sets of words are: in memory as two arrays, in a file as two files.

X: lists; list x is `values[starts_X1[x]:starts_X1[x + 1]]`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from curation.dedup.exchange import leave, rows_of


class Ragged(NamedTuple):
    """X lists: `starts_X1` (int64) counts from 0."""

    starts_X1: np.ndarray
    values: np.ndarray

    @property
    def lengths_X(self) -> np.ndarray:
        """How long each list is."""
        return np.diff(self.starts_X1)

    def taken(self, chosen: np.ndarray) -> "Ragged":
        """Some of the lists, in that order."""
        return Ragged(*_taken(self.starts_X1, self.values, chosen))

    def leave(self, path: Path) -> None:
        """Write them to two files, which begin with that path's name."""
        starts_path, values_path = _paths(path)
        leave(starts_path, [self.starts_X1], len(self.starts_X1), self.starts_X1)
        leave(values_path, [self.values], len(self.values), self.values)


def ragged_of(path: Path, begin: int = 0, end: int | None = None) -> Ragged:
    """Lists `begin` to `end` of a file."""
    starts_path, values_path = _paths(path)
    starts_X1 = rows_of(starts_path, begin, None if end is None else end + 1)
    return Ragged(starts_X1 - starts_X1[0], rows_of(values_path, int(starts_X1[0]), int(starts_X1[-1])))


def joined(parts: Sequence[Ragged]) -> Ragged:
    """The lists of several, at least one, one after the other."""
    lengths_X = np.concatenate([part.lengths_X for part in parts])
    return Ragged(np.concatenate([[0], np.cumsum(lengths_X)]), np.concatenate([part.values for part in parts]))


def forget(path: Path) -> None:
    """Remove the files of lists."""
    for one in _paths(path):
        one.unlink()


def _paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-starts"), path.with_name(f"{path.name}-values")


@njit(cache=True, nogil=True)
def _taken(starts_X1, values, chosen):  # type: ignore[no-untyped-def]
    starts = np.zeros(len(chosen) + 1, np.int64)
    for place in range(len(chosen)):
        starts[place + 1] = starts[place] + starts_X1[chosen[place] + 1] - starts_X1[chosen[place]]
    taken = np.empty(starts[-1], values.dtype)
    for place in range(len(chosen)):
        begin = starts_X1[chosen[place]]
        for within in range(starts[place + 1] - starts[place]):
            taken[starts[place] + within] = values[begin + within]
    return starts, taken
