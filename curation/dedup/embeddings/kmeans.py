"""Spherical k-means: cells of vectors by direction, whose centroids are stored as float16 unit vectors with a digest.

S: vectors of the sample; K: centroids; D: numbers per vector. Training is a pure function of (sample in its order,
cells, iterations, seed), for assignments are decided exactly and sums are taken in order. A pool that grows has another
sample, though: so centroids are captured artefacts, and everything later is a function of (values, centroids).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numba import njit

from curation.dedup.embeddings.cells import nearest_cells
from curation.dedup.embeddings.exact_cosine import Vectors

SAMPLE_PER_CELL = 64
_MOST_IN_ONE_LEVEL = 1000


def sample_rows(hash_N: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """The `rows` rows whose mix of seed and hash is lowest, lowest first; `hash_N` (uint64, of keys) is distinct."""
    mixed_N = _mixed(hash_N, seed)
    chosen = np.argpartition(mixed_N, rows - 1)[:rows] if rows < len(hash_N) else np.arange(len(hash_N))
    return chosen[np.argsort(mixed_N[chosen], kind="stable")]


@dataclass(frozen=True)
class KMeans:
    """How to train: the same for every level, and for every cell that is divided."""

    iterations: int = 10
    seed: int = 0
    device: str = "cpu"  # of torch, such as `cuda`; no result hangs on it, nor on the threads
    threads: int = 1

    def train(self, sample_SD: np.ndarray, cells: int) -> np.ndarray:
        """The centroids of `cells` cells as float16 unit vectors `centroids_KD`; all vectors have a direction.

        Beyond 1,000 cells in two levels: √K groups first, then each is divided alone, into a number of cells in
        proportion to its share of the sample. Cells are those of the centroids in any case, not of the groups.
        Equal vectors are counted each, and cost as much: better give distinct ones.
        """
        assert 1 <= cells <= len(sample_SD), f"{cells} cells of {len(sample_SD)} vectors"
        if cells <= _MOST_IN_ONE_LEVEL:
            return self._lloyd(sample_SD, cells)
        group_S = self._groups(sample_SD, self.train(sample_SD, round(cells**0.5)))
        if (group_S == group_S[0]).all():  # one direction, which groups do not divide
            return self._lloyd(sample_SD, cells)
        return self._divided(sample_SD, group_S, _shares(np.bincount(group_S), cells))

    def split_large(self, sample_SD: np.ndarray, centroids_KD: np.ndarray, most: int) -> np.ndarray:
        """The centroids, with those replaced by several whose cells hold more than `most` vectors of the sample."""
        cell_S = self._groups(sample_SD, centroids_KD)
        sizes_K = np.bincount(cell_S, minlength=len(centroids_KD))
        shares_K = np.where(sizes_K > most, -(-2 * sizes_K // most), 0)
        return np.concatenate([centroids_KD[shares_K == 0], self._divided(sample_SD, cell_S, shares_K)])

    def _groups(self, sample_SD: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
        """The nearest centroid of each vector."""
        sample, centroids = Vectors.of(sample_SD), Vectors.of(centroids_KD)
        return nearest_cells(sample, centroids, 1, self.device, self.threads)[0][:, 0]

    def _divided(self, sample_SD: np.ndarray, group_S: np.ndarray, shares_G: np.ndarray) -> np.ndarray:
        """The centroids of each group's cells, trained on its members, group after group."""
        shares = [(group, int(share)) for group, share in enumerate(shares_G) if share]
        parts = [self.train(sample_SD[group_S == group], share) for group, share in shares]
        return np.concatenate([sample_SD[:0], *parts])

    def _lloyd(self, sample_SD: np.ndarray, cells: int) -> np.ndarray:
        """Lloyd's iterations from `cells` vectors of the sample, chosen by hash."""
        sample = Vectors.of(sample_SD)
        chosen = sample_rows(np.arange(len(sample_SD), dtype=np.uint64), cells, self.seed)
        centroids_KD = _normalised(sample_SD[chosen])
        for _ in range(self.iterations):
            cells_S1, cosine_S1 = nearest_cells(sample, Vectors.of(centroids_KD), 1, self.device, self.threads)
            cell_S = cells_S1[:, 0]
            # Empty cells restart from the vectors that fit theirs worst, worst first; ties to the lowest.
            empty = np.flatnonzero(np.bincount(cell_S, minlength=cells) == 0)
            cell_S[np.argsort(cosine_S1[:, 0], kind="stable")[: len(empty)]] = empty
            centroids_KD = _means(sample, cell_S, centroids_KD)
        return centroids_KD


def digest(centroids_KD: np.ndarray) -> str:
    """SHA-256 of shape, type and bytes, as lower-case hex digits."""
    header = f"float16 {centroids_KD.shape[0]} {centroids_KD.shape[1]}\n"
    return hashlib.sha256(header.encode() + centroids_KD.astype("<f2").tobytes()).hexdigest()


def _shares(sizes_G: np.ndarray, cells: int) -> np.ndarray:
    """`cells` in proportion to sizes: the floor of each quota, and the rest by largest remainder; at most the size."""
    quotas_G = sizes_G * cells
    shares_G = quotas_G // sizes_G.sum()
    remainder_G = quotas_G - shares_G * sizes_G.sum()
    shares_G[np.argsort(-remainder_G, kind="stable")[: cells - shares_G.sum()]] += 1
    return shares_G


def _means(sample: Vectors, cell_S: np.ndarray, centroids_KD: np.ndarray) -> np.ndarray:
    """The mean direction of each cell; one without members, or whose members cancel, stays where it was."""
    sums_KD = np.zeros(centroids_KD.shape, np.float64)
    units_TD = np.empty((1 << 12, sample.bits_ND.shape[1]), np.float32)
    for start in range(0, len(cell_S), len(units_TD)):
        tile = np.arange(start, min(start + len(units_TD), len(cell_S)))
        _add(sums_KD, sample.units(tile, units_TD), cell_S[tile])
    means_KD = _normalised(sums_KD)
    return np.where(means_KD.any(axis=1, keepdims=True), means_KD, centroids_KD)


def _normalised(vectors_KD: np.ndarray) -> np.ndarray:
    """Vectors at length 1, as float16; a zero vector stays zero."""
    lengths_K = _lengths(vectors_KD.astype(np.float64))
    return (vectors_KD / np.where(lengths_K > 0, lengths_K, 1.0)[:, None]).astype(np.float16)


def _mixed(hash_N: np.ndarray, seed: int) -> np.ndarray:
    """splitmix64's output for each hash and the seed."""
    mixed_N = hash_N + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))


@njit(cache=True, nogil=True)
def _add(sums_KD, units_SD, cell_S):  # type: ignore[no-untyped-def]
    """Add each vector to its cell's sum, in order."""
    for n in range(len(units_SD)):
        for d in range(units_SD.shape[1]):
            sums_KD[cell_S[n], d] += units_SD[n, d]


@njit(cache=True, nogil=True)
def _lengths(vectors_KD):  # type: ignore[no-untyped-def]
    """Lengths, summed in order: NumPy's order of summation is the machine's."""
    lengths_K = np.empty(len(vectors_KD), np.float64)
    for k in range(len(vectors_KD)):
        squares = 0.0
        for value in vectors_KD[k]:
            squares += value * value
        lengths_K[k] = np.sqrt(squares)
    return lengths_K
