"""Joins by Hamming distance against comparing all with all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import hamming
from curation.dedup.blocks import key_blocks, tables
from curation.dedup.chance import chance_within, safe_distance
from curation.dedup.exact import first_of_equal
from curation.dedup.hamming import MOST_DISTANCE, pair_blocks_within, pairs_between, pairs_within

repeatably = settings(deadline=None, derandomize=True)  # the first call loads compiled code
BASES = (0, 2**64 - 1, 0x5A5A_0FF0_1234_5678, 0x8000_0000_0000_0001)
distances = st.integers(0, MOST_DISTANCE)


@st.composite
def clustered_codes(draw: st.DrawFn, most: int = 40) -> np.ndarray:
    """Codes around a few bases, so that every distance occurs, and equal codes do."""
    flips = st.tuples(st.sampled_from(BASES), st.sets(st.integers(0, 63), max_size=20))
    drawn = draw(st.lists(flips, max_size=most))
    return np.array([base ^ sum(1 << bit for bit in bits) for base, bits in drawn], np.uint64)


def brute(codes: np.ndarray, others: np.ndarray, distance: int) -> set[tuple[int, int]]:
    near = np.bitwise_count(codes[:, None] ^ others[None, :]) <= distance
    return set(zip(*(side.tolist() for side in np.nonzero(near)), strict=True))


def brute_within(codes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    """Stars of equal codes, and the pairs of the first rows of distinct codes."""
    first = first_of_equal([codes], np.arange(len(codes))).tolist()
    stars = {(first[row], row) for row in range(len(codes)) if first[row] != row}
    near = {(a, b) for a, b in brute(codes, codes, distance) if a < b and first[a] == a and first[b] == b}
    return stars | near


def as_list(pairs: hamming.Pairs) -> list[tuple[int, int]]:
    return sorted(zip(pairs[0].tolist(), pairs[1].tolist(), strict=True))


def planted(seed: int, rows: int) -> np.ndarray:
    """Random codes, and for each a neighbour at some distance from 0 to 40."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 2**64, rows, dtype=np.uint64)
    flipped = [sum(1 << int(bit) for bit in random.permutation(64)[: random.integers(0, 41)]) for _ in range(rows)]
    return random.permutation(np.concatenate([codes, codes ^ np.array(flipped, np.uint64)]))


@repeatably
@given(clustered_codes(), distances)
def test_a_self_join_finds_what_comparing_all_with_all_finds_each_pair_once(codes: np.ndarray, distance: int) -> None:
    assert as_list(pairs_within(codes, distance)) == sorted(brute_within(codes, distance))


@repeatably
@given(clustered_codes(), clustered_codes(), distances)
def test_a_join_of_two_sets_names_the_first_of_equal_others(left: np.ndarray, right: np.ndarray, distance: int) -> None:
    first = first_of_equal([right], np.arange(len(right)))
    expected = {(a, b) for a, b in brute(left, right, distance) if first[b] == b}
    assert as_list(pairs_between(left, right, distance)) == sorted(expected)


@pytest.mark.parametrize("distance", range(MOST_DISTANCE + 1))
def test_planted_pairs_are_found_at_every_radius(distance: int) -> None:
    codes = planted(distance, 400)
    assert as_list(pairs_within(codes, distance)) == sorted(brute_within(codes, distance))


@pytest.mark.parametrize(("distance", "k"), [(0, 0), (2, 1), (4, 1), (4, 2), (4, 3), (6, 2), (31, 1), (31, 0)])
def test_any_choice_of_key_blocks_gives_the_same_pairs(distance: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, others = planted(7, 300), planted(8, 200)
    others[:100] = codes[:100] ^ np.uint64(0b11)
    expected = as_list(pairs_within(codes, distance)), as_list(pairs_between(codes, others, distance))
    assert expected[0] == sorted(brute_within(codes, distance))
    monkeypatch.setattr(hamming, "key_blocks", lambda rows, within: k)
    assert (as_list(pairs_within(codes, distance)), as_list(pairs_between(codes, others, distance))) == expected


def test_pairs_that_do_not_fit_one_block_come_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.arange(256, dtype=np.uint64)
    monkeypatch.setattr(hamming, "_PAIRS_PER_BLOCK", 1)
    blocks = list(pair_blocks_within(codes, 8))
    assert len(blocks) > 100
    assert all(len(left) <= 256 for left, _ in blocks)
    assert sum(len(left) for left, _ in blocks) == 256 * 255 // 2


@repeatably
@given(clustered_codes(), distances, st.integers(0, 2**64 - 1), st.permutations(range(64)))
def test_flipping_or_permuting_the_same_bits_in_all_codes_changes_no_pair(
    codes: np.ndarray, distance: int, mask: int, places: list[int]
) -> None:
    permuted = np.zeros_like(codes)
    for source, target in enumerate(places):
        permuted |= ((codes >> np.uint64(source)) & np.uint64(1)) << np.uint64(target)
    pairs = as_list(pairs_within(codes, distance))
    assert as_list(pairs_within(codes ^ np.uint64(mask), distance)) == pairs
    assert as_list(pairs_within(permuted, distance)) == pairs


@pytest.mark.parametrize("distance", [0, 1, 4, 5, 31])
def test_a_pair_exactly_at_the_radius_is_in_and_one_bit_further_is_out(distance: int) -> None:
    base = 0x0123_4567_89AB_CDEF
    at, beyond = (1 << distance) - 1, (1 << (distance + 1)) - 1
    for shift in (0, 64 - distance - 1):
        assert len(pairs_within(np.array([base, base ^ (at << shift)], np.uint64), distance)[0]) == 1
        assert len(pairs_within(np.array([base, base ^ (beyond << shift)], np.uint64), distance)[0]) == 0


@repeatably
@given(clustered_codes(), distances)
def test_a_larger_radius_keeps_every_pair(codes: np.ndarray, distance: int) -> None:
    smaller, larger = pairs_within(codes, max(distance - 1, 0)), pairs_within(codes, distance)
    assert set(as_list(smaller)) <= set(as_list(larger))


@repeatably
@given(distances, st.integers(1, 10**7))
def test_tables_move_every_bit_to_a_place_of_its_own(distance: int, rows: int) -> None:
    for table, _ in zip(tables(distance, key_blocks(rows, distance)), range(20), strict=False):
        moved = table.mask_B << table.target_B
        assert sum(int(mask) for mask in moved) == 2**64 - 1
        assert sum(int(mask) for mask in table.mask_B << table.source_B) == 2**64 - 1


def test_codes_of_another_type_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="int64"):
        pairs_within(np.arange(3), 1)


@repeatably
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30), st.randoms())
def test_the_first_of_equal_rows_is_the_one_that_ranks_first(rows: list[tuple[int, int]], random: object) -> None:
    rank = np.random.default_rng(len(rows)).permutation(len(rows))
    columns = [np.array([row[n] for row in rows], np.int64) for n in range(2)]
    expected = [min((o for o in range(len(rows)) if rows[o] == row), key=lambda o: rank[o]) for row in rows]
    assert first_of_equal(columns, rank).tolist() == expected


def test_chance_neighbours_are_as_many_as_constant_weight_codes_have() -> None:
    assert chance_within(64) == pytest.approx(1)
    assert [5e9 * chance_within(d) for d in (4, 6, 8)] == pytest.approx([1.3e-3, 0.12, 6.3], rel=0.05)
    assert chance_within(5) == chance_within(4)
    assert (safe_distance(5_000_000_000), safe_distance(1_000_000), safe_distance(10**18)) == (4, 8, None)
