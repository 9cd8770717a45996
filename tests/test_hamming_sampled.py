"""The sampled search of 256-bit codes: what it finds, and what it says beforehand it will."""

from math import sqrt

import numpy as np
import pytest
from hamming_codes import brute, brute_within, planted, triples

from curation.dedup.hashes import sampled
from curation.dedup.hashes.distinct_codes import distinct
from curation.dedup.hashes.sampled import Sampling, jobs_sampled, sampling_for
from curation.dedup.join import pairs_of


def at_distance(distance: int, pairs: int) -> tuple[np.ndarray, ...]:
    """Values of a self-join with so many pairs at exactly one distance, and no others within 60 bits."""
    random = np.random.default_rng(distance)
    codes = random.integers(0, 2**64, (pairs, 4), dtype=np.uint64)
    flips = random.permuted(np.tile(np.arange(256) < distance, (pairs, 1)), axis=1)
    codes_U, _ = distinct(np.concatenate([codes, codes ^ np.packbits(flips, axis=1).view(np.uint64)]))
    return codes_U, np.zeros(len(codes_U), np.bool_)


@pytest.mark.parametrize("distance", [6, 18, 30])
@pytest.mark.parametrize("sampling", [Sampling(12, 3), Sampling(16, 10, seed=5), Sampling(20, 30, seed=6)])
def test_recall_at_a_distance_is_what_theory_says(distance: int, sampling: Sampling) -> None:
    pairs = 4_000
    values = at_distance(distance, pairs)
    found = triples(pairs_of(jobs_sampled(values, distance, sampling), values))
    expected = sampling.recall_at(distance)
    # The pairs share the tables, whose draws add to the scatter: half a percent.
    assert len(found) / pairs == pytest.approx(expected, abs=4 * sqrt(expected * (1 - expected) / pairs) + 0.005)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sampling_chosen_for_a_recall_reaches_it_at_exactly_the_radius(seed: int) -> None:
    values = at_distance(30, 4_000)
    many = tuple(np.broadcast_to(side, (1_000_000, *side.shape[1:])) for side in (values[0][:1], values[1][:1]))
    sampling = sampling_for(many, 30, 0.99, seed)
    assert sampling is not None
    assert 0.99 <= sampling.recall_at(30) < 0.995
    assert sampling.recall_at(20) > sampling.recall_at(30)
    found = triples(pairs_of(jobs_sampled(values, 30, sampling), values))
    assert len(found) / 4_000 >= 0.99 - 4 * sqrt(0.99 * 0.01 / 4_000)


def test_what_is_found_is_right_and_comes_once_in_any_shares() -> None:
    codes_U, _ = distinct(planted(4, 800, 256))
    values = (codes_U, np.zeros(len(codes_U), np.bool_))
    sampling = Sampling(6, 12)
    found = triples(pairs_of(jobs_sampled(values, 25, sampling), values))
    assert len(found) == len(set(found)) > 400
    assert set(found) <= set(brute_within(codes_U, 25))
    assert triples(pairs_of(jobs_sampled(values, 25, sampling, shares=3)[::-1], values, threads=2)) == found


def test_a_sampled_join_of_two_sets_finds_all_equal_codes_and_nothing_wrong() -> None:
    codes_U, _ = distinct(planted(4, 500, 256))
    others_V, _ = distinct(np.concatenate([codes_U[::3], planted(9, 300, 256)]))
    exact_only_U, exact_only_V = np.arange(len(codes_U)) % 2 == 0, np.arange(len(others_V)) % 5 == 0
    values = (codes_U, exact_only_U, others_V, exact_only_V)
    found = triples(pairs_of(jobs_sampled(values, 20, Sampling(10, 4)), values))
    assert len(found) == len(set(found))
    right = brute(codes_U, others_V, 20)
    allowed = {triple for triple in right if triple[2] == 0 or not (exact_only_U[triple[0]] or exact_only_V[triple[1]])}
    assert {triple for triple in allowed if triple[2] == 0} <= set(found) <= allowed


def test_another_seed_draws_other_bits_and_the_same_one_the_same() -> None:
    keys = [[table.key_W.tolist() for table in sampled._tables(Sampling(14, 5, seed), 5)] for seed in (0, 0, 1)]
    assert keys[0] == keys[1]
    assert len({str(key) for key in keys[0] + keys[2]}) == 10
    assert {sum(word.bit_count() for word in key) for key in keys[0]} == {14}


def test_where_finding_all_is_as_cheap_nothing_is_sampled() -> None:
    values = (np.arange(10**6, dtype=np.uint64), np.zeros(10**6, np.bool_))
    assert sampling_for(values, 12, 0.99) is None
    few = at_distance(2, 50)
    assert sampling_for(few, 2, 0.99) is None
    with pytest.raises(ValueError, match=r"1\.0"):
        sampling_for(few, 2, 1.0)
