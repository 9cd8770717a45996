"""What is expected by chance of unrelated hashes, and which hashes say too little."""

from math import sqrt

import numpy as np
import pytest

from curation.dedup.hashes.chance import Kind, chance_at, chance_within, safe_distance
from curation.dedup.hashes.distinct_codes import distinct
from curation.dedup.hashes.low_entropy import exact_only_of_64_bits, exact_only_of_pdq

KINDS: tuple[tuple[Kind, int], ...] = (("phash", 64), ("dhash", 64), ("pdq", 256))


def unrelated(kind: Kind, rows: int) -> np.ndarray:
    """The bits of unrelated hashes of a kind, as it is defined."""
    random = np.random.default_rng(0)
    if kind == "dhash":
        return random.integers(0, 2, (rows, 64))
    if kind == "pdq":
        return random.permuted(np.tile(np.arange(256) < 128, (rows, 1)), axis=1).astype(int)
    return np.hstack([np.ones((rows, 1), int), random.permuted(np.tile(np.arange(63) < 31, (rows, 1)), axis=1)])


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_unrelated_hashes_lie_as_far_apart_as_stated(kind: Kind, bits: int) -> None:
    assert chance_within(bits, kind) == pytest.approx(1)
    pairs = 20_000
    ones_NB = unrelated(kind, 2 * pairs)
    apart = np.abs(ones_NB[:pairs] - ones_NB[pairs:]).sum(axis=1)
    for distance in (bits // 2 - 8, bits // 2 - 7, bits // 2, bits // 2 + 6):
        expected = chance_at(distance, kind)
        assert (apart == distance).mean() == pytest.approx(expected, abs=4 * sqrt(expected / pairs) + 1e-12)


def test_chance_neighbours_are_as_many_as_constant_weight_codes_have() -> None:
    assert [5e9 * chance_within(d) for d in (4, 6, 8)] == pytest.approx([1.3e-3, 0.12, 6.3], rel=0.05)
    assert chance_within(5) == chance_within(4)
    assert chance_within(30, "pdq") == pytest.approx(3e-38, rel=0.5)
    assert chance_within(1, "dhash") == pytest.approx(65 / 2**64)


def test_the_safe_distance_is_the_last_at_which_few_neighbours_are_expected() -> None:
    assert (safe_distance(5_000_000_000), safe_distance(1_000_000), safe_distance(10**18)) == (4, 8, None)
    for kind, _ in KINDS:
        safe = safe_distance(1_000_000, kind)
        assert safe is not None
        assert 1e6 * chance_within(safe, kind) <= 0.01 < 1e6 * chance_within(safe + 2, kind)


def test_codes_with_few_ones_or_few_zeros_are_exact_only() -> None:
    codes = np.array([0, 1 << 63, 2**7 - 1, 2**8 - 1, 2**56 - 1, 2**57 - 1, 2**64 - 1, 0xF0F0F0F0F0F0F0F0], np.uint64)
    assert exact_only_of_64_bits(codes).tolist() == [True, True, True, False, False, True, True, False]


def test_a_pdq_is_exact_only_where_no_row_holds_it_with_a_good_quality() -> None:
    codes_U, group_N = distinct(np.repeat(np.array([[3], [1], [1], [2]], np.uint64), 4, axis=1))
    assert exact_only_of_pdq(group_N, np.array([49, 20, 50, 100]), len(codes_U)).tolist() == [False, False, True]
