"""Codes for tests of Hamming joins, the joins as plain lists, and the oracle: comparing all with all."""

from collections.abc import Iterable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from curation.dedup.hashes.distinct_codes import as_words
from curation.dedup.hashes.hamming import MOST_DISTANCE, jobs_between, jobs_within
from curation.dedup.join import PairBlock, pairs_of

Triples = list[tuple[int, int, int]]  # left, right, distance

BITS = (64, 256)
repeatably = settings(deadline=None, derandomize=True, max_examples=30)  # the first call loads compiled code
distances = st.integers(0, MOST_DISTANCE)


def as_codes(numbers: Iterable[int], bits: int) -> np.ndarray:
    """Codes of so many bits; the first word holds the highest ones."""
    words = bits // 64
    rows = [[number >> 64 * word & (2**64 - 1) for word in reversed(range(words))] for number in numbers]
    codes = np.array(rows, np.uint64).reshape(-1, words)
    return codes[:, 0] if words == 1 else codes


@st.composite
def clustered_codes(draw: st.DrawFn, bits: int, most: int = 40) -> np.ndarray:
    """Codes around a few bases, so that every distance occurs, and equal codes do."""
    bases = (0, 2**bits - 1, 0x5A5A_0FF0_1234_5678 << (bits - 64), (1 << (bits - 1)) + 1)
    flips = st.tuples(st.sampled_from(bases), st.sets(st.integers(0, bits - 1), max_size=20))
    drawn = draw(st.lists(flips, max_size=most))
    return as_codes((base ^ sum(1 << bit for bit in flipped) for base, flipped in drawn), bits)


def planted(seed: int, rows: int, bits: int, most_flips: int = 40) -> np.ndarray:
    """Random codes, and for each a neighbour at some distance from 0 to `most_flips`."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 2**64, (rows, bits // 64), dtype=np.uint64)
    flips = np.arange(bits) < random.integers(0, most_flips + 1, rows)[:, None]
    flipped = codes ^ np.packbits(random.permuted(flips, axis=1), axis=1).view(np.uint64)
    both = random.permutation(np.concatenate([codes, flipped]))
    return both[:, 0] if bits == 64 else both


def triples(pair_blocks: Iterable[PairBlock]) -> Triples:
    """All pairs with their distances, in order; a pair that came twice is there twice."""
    return sorted(
        triple
        for left_P, right_P, distance_P in pair_blocks
        for triple in zip(left_P.tolist(), right_P.tolist(), distance_P.tolist(), strict=True)
    )


def within(codes_U: np.ndarray, distance: int) -> Triples:
    """The self-join of distinct codes."""
    values = (codes_U, np.zeros(len(codes_U), np.bool_))
    return triples(pairs_of(jobs_within(values, distance), values))


def between(codes_U: np.ndarray, others_V: np.ndarray, distance: int) -> Triples:
    """The join of two sets of distinct codes."""
    values = (codes_U, np.zeros(len(codes_U), np.bool_), others_V, np.zeros(len(others_V), np.bool_))
    return triples(pairs_of(jobs_between(values, distance), values))


def brute(codes_U: np.ndarray, others_V: np.ndarray, distance: int) -> Triples:
    """The pairs of two sets by comparing all with all."""
    apart_UV = np.bitwise_count(as_words(codes_U)[:, None] ^ as_words(others_V)[None]).sum(axis=2, dtype=int)
    return [(left, right, int(apart_UV[left, right])) for left, right in np.argwhere(apart_UV <= distance).tolist()]


def brute_within(codes_U: np.ndarray, distance: int) -> Triples:
    """The pairs inside one set by comparing all with all."""
    return [triple for triple in brute(codes_U, codes_U, distance) if triple[0] < triple[1]]
