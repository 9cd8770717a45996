"""The distinct float16 vectors of a pool, numbered by value alone.

N: rows; U: distinct vectors; D: numbers per vector.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from curation.dedup.exact_cosine import usable


@dataclass(frozen=True)
class DistinctVectors:
    """The byte-wise distinct vectors among N rows, and which rows hold each; rows without a direction hold none.

    `rows_M[starts_U[u]:starts_U[u] + counts_U[u]]` are the rows of vector u in ascending order, `first_U[u]` the
    lowest of them. Vectors are numbered by a hash of their bytes, so the first S of them are a random sample.
    """

    vectors_UD: np.ndarray
    first_U: np.ndarray
    starts_U: np.ndarray
    counts_U: np.ndarray
    rows_M: np.ndarray

    @classmethod
    def of(cls, vectors_ND: np.ndarray) -> "DistinctVectors":
        """Collapse equal vectors; vectors with NaN or infinity and zero vectors are left out."""
        bits_ND = np.ascontiguousarray(vectors_ND).view(np.uint16)
        rows_M = np.flatnonzero(usable(vectors_ND))
        hash_M = _hashes(bits_ND, rows_M)
        order_M = np.argsort(hash_M, kind="stable")
        rows_M, hash_M = rows_M[order_M], hash_M[order_M]
        is_first_M = np.ones(len(rows_M), np.bool_)
        is_first_M[1:] = hash_M[1:] != hash_M[:-1]
        _part_collisions(bits_ND, rows_M, is_first_M)
        starts_U = np.flatnonzero(is_first_M)
        first_U = rows_M[starts_U]
        return cls(vectors_ND[first_U], first_U, starts_U, np.diff(starts_U, append=len(rows_M)), rows_M)

    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """(first row, row) for every row that is not the first of its vector."""
        leader_M = np.repeat(self.first_U, self.counts_U)
        is_repeat_M = self.rows_M != leader_M
        return leader_M[is_repeat_M], self.rows_M[is_repeat_M]


def _part_collisions(bits_ND: np.ndarray, rows_M: np.ndarray, is_first_M: np.ndarray) -> None:
    """Where unequal vectors have one hash, order their rows by bytes and mark the first of each."""
    same = np.flatnonzero(~is_first_M)
    tiles = [same[start : start + (1 << 14)] for start in range(0, len(same), 1 << 14)]
    differ = [tile[(bits_ND[rows_M[tile]] != bits_ND[rows_M[tile - 1]]).any(axis=1)] for tile in tiles]
    edges = np.append(np.flatnonzero(is_first_M), len(rows_M))
    for run in np.unique(np.searchsorted(edges, np.concatenate([same[:0], *differ]), side="right") - 1):
        begin, end = edges[run : run + 2]
        ordered = sorted((bits_ND[row].tobytes(), row) for row in rows_M[begin:end])
        rows_M[begin:end] = [row for _, row in ordered]
        is_first_M[begin + 1 : end] = [ordered[n][0] != ordered[n + 1][0] for n in range(len(ordered) - 1)]


@njit(cache=True, nogil=True)
def _hashes(bits_ND, rows_M):  # type: ignore[no-untyped-def]
    """A 64-bit hash of each row's bytes: FNV-1a over its numbers, mixed as splitmix64 does."""
    hash_M = np.empty(len(rows_M), np.uint64)
    for m in range(len(rows_M)):
        value = np.uint64(0xCBF29CE484222325)
        for number in bits_ND[rows_M[m]]:
            value = (value ^ np.uint64(number)) * np.uint64(0x100000001B3)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hash_M[m] = value ^ (value >> np.uint64(31))
    return hash_M
