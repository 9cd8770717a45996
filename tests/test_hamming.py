"""Joins by Hamming distance of 64 and 256 bits, against comparing all with all and against faiss."""

import pickle
from itertools import permutations

import faiss
import numpy as np
import pytest
from hamming_codes import (
    BITS,
    as_codes,
    between,
    brute,
    brute_within,
    clustered_codes,
    distances,
    planted,
    repeatably,
    triples,
    within,
)
from hamming_pairs import pairs_within
from hypothesis import given
from hypothesis import strategies as st

from curation.dedup.hashes import blocks, hamming
from curation.dedup.hashes.distinct_codes import as_words, distinct
from curation.dedup.hashes.hamming import MOST_DISTANCE, jobs_between, jobs_within
from curation.dedup.join import pairs_of

both_widths = pytest.mark.parametrize("bits", BITS)


@both_widths
@repeatably
@given(data=st.data())
def test_a_self_join_finds_what_comparing_all_with_all_finds_each_pair_once(bits: int, data: st.DataObject) -> None:
    codes, distance = data.draw(clustered_codes(bits)), data.draw(distances)
    codes_U, _ = distinct(codes)
    assert within(codes_U, distance) == brute_within(codes_U, distance)


@both_widths
@repeatably
@given(data=st.data())
def test_a_join_of_two_sets_finds_what_comparing_all_with_all_finds(bits: int, data: st.DataObject) -> None:
    codes, others, distance = data.draw(clustered_codes(bits)), data.draw(clustered_codes(bits)), data.draw(distances)
    (codes_U, _), (others_V, _) = distinct(codes), distinct(others)
    assert between(codes_U, others_V, distance) == brute(codes_U, others_V, distance)


@both_widths
@pytest.mark.parametrize("distance", range(MOST_DISTANCE + 1))
def test_planted_pairs_are_found_at_every_radius(bits: int, distance: int) -> None:
    codes_U, _ = distinct(planted(distance, 150, bits))
    others_V, _ = distinct(np.concatenate([codes_U[::3], planted(distance + 50, 50, bits)]))
    assert within(codes_U, distance) == brute_within(codes_U, distance)
    assert between(codes_U, others_V, distance) == brute(codes_U, others_V, distance)


@both_widths
@pytest.mark.parametrize(("distance", "k"), [(1, 1), (2, 0), (2, 2), (4, 1), (4, 3), (9, 2), (31, 0), (31, 1)])
def test_any_number_of_key_blocks_gives_the_same_pairs(
    bits: int, distance: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hamming, "key_blocks", lambda *_: k)
    monkeypatch.setattr(
        "curation.dedup.hashes.meeting.NS_PER_CANDIDATE", dict.fromkeys((1, 4), 1e9)
    )  # to the last block
    codes_U, _ = distinct(planted(7, 200, bits))
    others_V, _ = distinct(codes_U[::2] ^ np.uint64(0b11))
    assert within(codes_U, distance) == brute_within(codes_U, distance)
    assert between(codes_U, others_V, distance) == brute(codes_U, others_V, distance)


@both_widths
@pytest.mark.parametrize("distance", [4, 12, 30])
def test_faiss_finds_the_same_pairs(bits: int, distance: int) -> None:
    codes_U, _ = distinct(planted(3, 500, bits))
    index = faiss.IndexBinaryFlat(bits)
    index.add(as_words(codes_U).view(np.uint8))
    ends, found_distances, found = index.range_search(as_words(codes_U).view(np.uint8), distance + 1)
    lefts = np.repeat(np.arange(len(codes_U)), np.diff(ends.astype(np.int64)))
    once = lefts < found
    expected = zip(lefts[once].tolist(), found[once].tolist(), found_distances[once].astype(int).tolist(), strict=True)
    assert within(codes_U, distance) == sorted(expected)


@both_widths
@repeatably
@given(data=st.data())
def test_distinct_codes_are_sorted_and_know_nothing_of_rows(bits: int, data: st.DataObject) -> None:
    codes = data.draw(clustered_codes(bits))
    codes_U, group_N = distinct(codes)
    assert np.array_equal(codes_U[group_N], codes)
    as_tuples = [tuple(code) for code in as_words(codes_U).tolist()]
    assert as_tuples == sorted(set(as_tuples))
    repeated = codes[data.draw(st.permutations([*range(len(codes)), *range(0, len(codes), 2)]))]
    assert np.array_equal(distinct(repeated)[0], codes_U)


def test_distinct_sorts_by_further_words_where_the_first_are_equal() -> None:
    words = [[1, 0, 2, 0], [0, 5, 5, 5], [1, 0, 2, 0], [1, 0, 1, 9], [0, 5, 5, 5], [1, 0, 2, 0]]
    codes_U, group_N = distinct(np.array(words, np.uint64))
    assert codes_U.tolist() == [[0, 5, 5, 5], [1, 0, 1, 9], [1, 0, 2, 0]]
    assert group_N.tolist() == [2, 0, 2, 1, 0, 2]


@both_widths
def test_jobs_in_any_order_in_shares_and_in_threads_give_the_same_pairs(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hamming, "key_blocks", lambda *_: 1)
    codes_U, _ = distinct(planted(5, 1_000, bits))
    values = (codes_U, np.zeros(len(codes_U), bool))
    expected = brute_within(codes_U, 2)
    jobs = jobs_within(values, 2)
    for order in permutations(jobs):
        assert triples(pairs_of(order, values)) == expected
    in_shares = jobs_within(values, 2, shares=3)
    assert len(in_shares) == 3 * len(jobs)
    assert triples(pairs_of(in_shares[::-1], values, threads=2)) == expected


@pytest.mark.parametrize("k", [0, 1])
def test_shares_of_a_join_of_two_sets_are_its_pairs_once(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "key_blocks", lambda *_: k)
    codes_U, others_V = (distinct(planted(seed, rows, 64))[0] for seed, rows in ((1, 1_500), (1, 900)))
    values = (codes_U, np.zeros(len(codes_U), bool), others_V, np.zeros(len(others_V), bool))
    assert triples(pairs_of(jobs_between(values, 6, shares=4), values)) == brute(codes_U, others_V, 6)


@both_widths
def test_a_job_can_be_sent_and_reads_codes_that_cannot_be_written(bits: int) -> None:
    codes_U, others_V = (distinct(planted(seed, 400, bits))[0] for seed in (1, 1))
    values = (codes_U, np.zeros(len(codes_U), bool), others_V, np.arange(len(others_V)) == 3)
    jobs = jobs_between(values, 3)
    expected = triples(pairs_of(jobs, values))
    for side in values:
        side.setflags(write=False)
    assert triples(pairs_of(pickle.loads(pickle.dumps(jobs)), values)) == expected
    assert triples(pairs_of(pickle.loads(pickle.dumps(jobs_within(values[:2], 3))), values[:2])) == brute_within(
        codes_U, 3
    )


@both_widths
@repeatably
@given(data=st.data())
def test_flipping_or_permuting_the_same_bits_in_all_codes_changes_no_pair(bits: int, data: st.DataObject) -> None:
    codes, distance = data.draw(clustered_codes(bits)), data.draw(distances)
    mask, places = data.draw(st.integers(0, 2**bits - 1)), np.array(data.draw(st.permutations(range(bits))))
    ones_NB = np.unpackbits(as_words(codes).view(np.uint8), axis=1, bitorder="little")
    bytes_NB = np.ascontiguousarray(np.packbits(ones_NB[:, places], axis=1, bitorder="little"))
    permuted = bytes_NB.view(np.uint64).reshape(codes.shape)
    flipped = codes ^ as_codes([mask], bits)[0]
    expected = sorted(zip(*(side.tolist() for side in pairs_within(codes, distance)), strict=True))
    for same in (flipped, permuted):
        assert sorted(zip(*(side.tolist() for side in pairs_within(same, distance)), strict=True)) == expected


@both_widths
@repeatably
@given(data=st.data())
def test_a_larger_radius_keeps_every_pair(bits: int, data: st.DataObject) -> None:
    codes_U, _ = distinct(data.draw(clustered_codes(bits)))
    distance = data.draw(st.integers(1, MOST_DISTANCE))
    assert set(within(codes_U, distance - 1)) <= set(within(codes_U, distance))


@both_widths
@pytest.mark.parametrize("distance", [0, 1, 4, 5, 31])
def test_a_pair_exactly_at_the_radius_is_in_and_one_bit_further_is_out(bits: int, distance: int) -> None:
    base = 0x0123_4567_89AB_CDEF << (bits - 64)
    at, beyond = (1 << distance) - 1, (1 << (distance + 1)) - 1
    for shift in (0, bits - distance - 1):
        assert len(pairs_within(as_codes([base, base ^ (at << shift)], bits), distance)[0]) == 1
        assert len(pairs_within(as_codes([base, base ^ (beyond << shift)], bits), distance)[0]) == 0


def test_further_rows_of_a_code_are_paired_with_its_first_row_alone() -> None:
    codes = np.array([7, 5, 7, 1 << 40, 5, 7], np.uint64)
    left, right = pairs_within(codes, 1)
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 5), (1, 4)]


@both_widths
def test_an_exact_only_code_meets_its_equal_and_no_other(bits: int) -> None:
    codes_U, _ = distinct(as_codes([0, 1, 2, 3, 1 << 40], bits))
    exact_only = np.array([True, False, False, True, False])
    others_V, _ = distinct(as_codes([0, 1, 3], bits))
    values = (codes_U, exact_only, others_V, np.array([False, False, True]))
    assert triples(pairs_of(jobs_within(values[:2], 4), values[:2])) == [(1, 2, 2), (1, 4, 2), (2, 4, 2)]
    assert triples(pairs_of(jobs_between(values, 2), values)) == [
        (0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 1), (2, 1, 2), (3, 2, 0), (4, 0, 1), (4, 1, 2),
    ]  # fmt: skip


@repeatably
@given(st.integers(1, 256), st.integers(1, 40))
def test_blocks_hold_every_bit_once_and_are_nearly_equal(bits: int, number: int) -> None:
    mask = as_codes([(1 << bits) - 1], 256)[0]
    blocks_BW = blocks.cut(mask, min(number, bits))
    assert np.array_equal(np.bitwise_or.reduce(blocks_BW), mask)
    sizes = np.bitwise_count(blocks_BW).sum(axis=1)
    assert sizes.sum() == bits
    assert sizes.max() - sizes.min() <= 1


def test_codes_of_another_type_or_width_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="int64"):
        pairs_within(np.arange(3), 1)
    with pytest.raises(AssertionError, match="192"):
        pairs_within(np.zeros((2, 3), np.uint64), 1)
    with pytest.raises(AssertionError, match="32"):
        pairs_within(np.zeros(2, np.uint64), 32)
