"""The distinct float16 vectors of a pool, numbered by value alone.

N: rows; M: rows that have a direction; U: distinct vectors; D: numbers per vector.
"""

import numpy as np
from numba import njit

from curation.dedup.embeddings.exact_cosine import usable


def distinct(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The byte-wise distinct float16 vectors as `vectors_UD`, and the one that each row holds as `group_N`.

    Rows without a direction (NaN, infinity, all zero) have group -1. Vectors are numbered by a hash of their bytes, so
    the first S of them are a random sample.
    """
    return distinct_by_hash(vectors_ND)[:2]


def distinct_by_hash(vectors_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `distinct` gives, and the hash that vectors are in the order of as `hash_U` (uint64).

    The distinct vectors of a pool are those of one range of hashes after the other: each range may be collapsed alone.
    """
    bits_ND = np.ascontiguousarray(vectors_ND).view(np.uint16)
    rows_M = np.flatnonzero(usable(vectors_ND))
    hash_M = _hashes(bits_ND, rows_M)
    order_M = np.argsort(hash_M, kind="stable")
    rows_M, hash_M = rows_M[order_M], hash_M[order_M]
    is_first_M = np.ones(len(rows_M), np.bool_)
    is_first_M[1:] = hash_M[1:] != hash_M[:-1]
    _part_collisions(bits_ND, rows_M, is_first_M)
    group_N = np.full(len(vectors_ND), -1, np.int64)
    group_N[rows_M] = np.cumsum(is_first_M) - 1
    return vectors_ND[rows_M[is_first_M]], group_N, hash_M[is_first_M]


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
