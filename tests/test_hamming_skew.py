"""Hamming joins of codes that are not like tossed coins: many share most of their bits."""

import numpy as np
import pytest
from hamming_codes import as_codes, between, brute, brute_within, planted, triples, within

from curation.dedup.hashes import hamming, meeting
from curation.dedup.hashes.distinct_codes import distinct
from curation.dedup.hashes.hamming import jobs_within
from curation.dedup.join import pairs_of

both_widths = pytest.mark.parametrize("bits", [64, 256])


def alike(seed: int, rows: int, bits: int, places: list[int]) -> np.ndarray:
    """Codes that differ in some places only."""
    random = np.random.default_rng(seed)
    base = int.from_bytes(random.bytes(bits // 8))
    ones = random.integers(0, 2, (rows, len(places)))
    return as_codes(
        (base ^ sum(1 << place for place, one in zip(places, row, strict=True) if one) for row in ones), bits
    )


@both_widths
@pytest.mark.parametrize("distance", [1, 2, 4])
def test_a_large_bucket_is_cut_by_the_bits_that_still_differ(
    bits: int, distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "MOST_PAIRS_OF_BUCKET", 60)
    monkeypatch.setattr(hamming, "key_blocks", lambda rows, *_: 1 if rows > 12 else 0)
    hot = alike(1, 500, bits, [3, 5, 6, 20, 21, 22, 40, 50, 51, 60, 61, 63])
    codes_U, _ = distinct(np.concatenate([hot, planted(2, 50, bits), hot[:50] ^ np.uint64(1 << 45)]))
    assert within(codes_U, distance) == brute_within(codes_U, distance)
    others_V, _ = distinct(np.concatenate([hot[::4] ^ np.uint64(1 << 30), planted(2, 20, bits)]))
    assert between(codes_U, others_V, distance) == brute(codes_U, others_V, distance)


def test_more_pairs_than_one_block_holds_come_in_several() -> None:
    codes_U = np.arange(6_000, dtype=np.uint64)
    values = (codes_U, np.zeros(len(codes_U), bool))
    blocks = list(pairs_of(jobs_within(values, 13), values))
    assert sum(len(left_P) for left_P, _, _ in blocks) == 6_000 * 5_999 // 2
    assert len(blocks) >= 4
    assert max(len(left_P) for left_P, _, _ in blocks) <= 1 << 22


def test_twenty_thousand_codes_in_one_bucket_are_joined_exactly() -> None:
    """They share 46 of 64 bits, so that every pair within 2 is known: x and x with one or two of 18 bits flipped."""
    codes_U = np.sort(np.random.default_rng(0).permutation(1 << 18)[:20_000].astype(np.uint64) << np.uint64(23))
    values = (codes_U, np.zeros(len(codes_U), bool))
    flips = [(1 << a) | (1 << b) for a in range(18) for b in range(a, 18)]
    is_there = np.zeros(1 << 18, bool)
    is_there[codes_U >> np.uint64(23)] = True
    places = np.flatnonzero(is_there)
    expected = sum(int(is_there[places ^ flip].sum()) for flip in flips) // 2
    found = triples(pairs_of(jobs_within(values, 2), values))
    assert len(found) == len(set(found)) == expected
    lefts, rights, apart = np.array(found).T
    assert np.array_equal(np.bitwise_count(codes_U[lefts] ^ codes_U[rights]), apart)
    assert (lefts < rights).all()


def test_equal_codes_are_one_code() -> None:
    codes = np.concatenate([np.full(100_000, 7, np.uint64), 7 ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))])
    codes_U, group_N = distinct(codes)
    assert len(codes_U) == 65
    assert np.array_equal(codes_U[group_N], codes)
    assert len(within(codes_U, 1)) == 64
