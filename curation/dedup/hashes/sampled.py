"""A search of 256-bit codes that finds a pair with a stated probability: tables keyed by bits drawn at random.

Two codes that differ in d of 256 bits agree in w bits drawn at random with probability p = C(256-d, w) / C(256, w);
in at least one of L tables with probability 1 - (1 - p)^L, the recall at exactly d; nearer pairs are found more often.
(Bit sampling: Indyk and Motwani 1998.) Codes of 64 bits are always joined exactly, for that is as cheap.

W: words of 64 bits in a code, 4 here; L: tables; w: bits of a key. Values and pairs as in hamming.py.
"""

from dataclasses import dataclass
from hashlib import sha256
from math import ceil, comb, log1p

import numpy as np

from curation.dedup.hashes.blocks import Table, work_s
from curation.dedup.hashes.distinct_codes import as_words
from curation.dedup.hashes.hamming import jobs_of_tables, rows_and_candidates, tables_within
from curation.dedup.join import Job, Values

BITS = 256
_WORDS = BITS // 64
_KEY_BITS = range(8, 41)


@dataclass(frozen=True)
class Sampling:
    """So many tables, each keyed by so many bits, which the seed draws."""

    key_bits: int
    tables: int
    seed: int = 0

    def recall_at(self, distance: int) -> float:
        """The probability that a pair exactly `distance` bits apart meets in a table."""
        return 1 - (1 - agreeing(distance, self.key_bits)) ** self.tables


def agreeing(distance: int, key_bits: int) -> float:
    """The probability that two codes `distance` bits apart agree in so many bits drawn without repetition."""
    return comb(BITS - distance, key_bits) / comb(BITS, key_bits)


def sampling_for(values: Values, distance: int, recall: float, seed: int = 0) -> Sampling | None:
    """The cheapest sampling that finds a pair exactly at `distance` with probability `recall` at least.

    None where finding all pairs is as cheap, as it always is for codes of 64 bits. Raises ValueError for a recall that
    is not between 0 and 1.
    """
    if not 0 < recall < 1:
        raise ValueError(f"recall: {recall} is not between 0 and 1; without it every pair is found")
    if as_words(values[0]).shape[1] < _WORDS or distance == 0:
        return None
    rows, candidates = rows_and_candidates(values)
    samplings = [
        Sampling(key_bits, ceil(log1p(-recall) / log1p(-agreeing(distance, key_bits))), seed) for key_bits in _KEY_BITS
    ]
    works_s = [sampling.tables * work_s(_tables(sampling, 1)[0], rows, candidates) for sampling in samplings]
    exact_s = sum(work_s(table, rows, candidates) for table in tables_within(values, distance))
    cheapest = int(np.argmin(works_s))
    return samplings[cheapest] if works_s[cheapest] < exact_s else None


def jobs_sampled(values: Values, distance: int, sampling: Sampling, shares: int = 1) -> list[Job]:
    """Jobs that find pairs within `distance` bits, each in the first table in which it meets."""
    return jobs_of_tables(tables_sampled(sampling), values, distance, shares)


def tables_sampled(sampling: Sampling) -> list[Table]:
    """The tables of a sampling."""
    return _tables(sampling, sampling.tables)


def _tables(sampling: Sampling, tables: int) -> list[Table]:
    """The first tables of a sampling."""
    keys_LW = np.array([_drawn(sampling, number) for number in range(tables)])
    none_BW = np.empty((0, _WORDS), np.uint64)
    return [Table(key_W, key_W, keys_LW[:number], none_BW, 0, 0) for number, key_W in enumerate(keys_LW)]


def _drawn(sampling: Sampling, table: int) -> np.ndarray:
    """The bits of a table's key: those that come first by a hash with the seed, for no generator's stream lasts."""
    order = sorted(range(BITS), key=lambda bit: sha256(f"{sampling.seed} {table} {bit}".encode()).digest())
    mask = sum(1 << bit for bit in order[: sampling.key_bits])
    return np.array([mask >> 64 * word & (2**64 - 1) for word in range(_WORDS)], np.uint64)
