"""The three rules of who survives, against slow definitions of them."""

import numpy as np
import pytest
from hamming_pairs import leaders_within, nearest_between, pairs_within
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.components import roots
from curation.dedup.survivors import RULES, Rule

repeatably = settings(deadline=None, derandomize=True)  # the first call loads compiled code
rules = pytest.mark.parametrize("rule", list(RULES))
Graph = tuple[list[tuple[int, int]], list[int]]


@st.composite
def ranked_graphs(draw: st.DrawFn) -> Graph:
    """Edges between up to 14 rows, and a rank of each row."""
    rank = draw(st.permutations(range(draw(st.integers(1, 14)))))
    row = st.integers(0, len(rank) - 1)
    edges = draw(st.lists(st.tuples(row, row).filter(lambda edge: edge[0] != edge[1]), max_size=25))
    return edges, list(rank)


def small_codes() -> st.SearchStrategy[np.ndarray]:
    """Codes of 7 bits: at radius 1 and 2 they make chains, cliques and equal codes."""
    return st.lists(st.integers(0, 127), max_size=25).map(lambda codes: np.array(codes, np.uint64))


def decide(rule: Rule, edges: list[tuple[int, int]], rank: list[int]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    half = len(ends) // 2  # two blocks: how edges are cut must not matter
    return RULES[rule]([(b[:, 0], b[:, 1]) for b in (ends[:half], ends[half:])], np.array(rank))


def neighbours(edges: list[tuple[int, int]], row: int) -> set[int]:
    return {b for a, b in edges if a == row} | {a for a, b in edges if b == row}


def component(edges: list[tuple[int, int]], row: int) -> set[int]:
    seen, waiting = {row}, [row]
    while waiting:
        found = neighbours(edges, waiting.pop()) - seen
        seen |= found
        waiting += found
    return seen


def slow_leaders(rule: Rule, edges: list[tuple[int, int]], rank: list[int]) -> list[int]:
    """The definitions of the rules, one row at a time."""
    leaders = list(range(len(rank)))
    for row in sorted(leaders, key=lambda r: rank[r]):
        first = min(component(edges, row), key=lambda r: rank[r])
        before = [n for n in neighbours(edges, row) if rank[n] < rank[row]]
        if rule == "components":
            leaders[row] = first
        elif rule == "earlier":
            leaders[row] = first if before else row
        else:
            leaders[row] = min((n for n in before if leaders[n] == n), key=lambda n: rank[n], default=row)
    return leaders


@rules
@repeatably
@given(ranked_graphs())
def test_a_rule_decides_as_its_definition_does(rule: Rule, graph: Graph) -> None:
    kept, leaders = decide(rule, *graph)
    assert leaders.tolist() == slow_leaders(rule, *graph)
    assert kept.tolist() == (leaders == np.arange(len(leaders))).tolist()


@rules
@repeatably
@given(ranked_graphs())
def test_a_dropped_row_is_led_by_a_kept_one(rule: Rule, graph: Graph) -> None:
    kept, leaders = decide(rule, *graph)
    assert kept[leaders].all()


@repeatably
@given(ranked_graphs())
def test_components_keep_no_more_than_earlier_and_earlier_no_more_than_greedy(graph: Graph) -> None:
    components, earlier, greedy = (decide(rule, *graph)[0] for rule in ("components", "earlier", "greedy"))
    assert (components <= earlier).all()
    assert (earlier <= greedy).all()


@rules
def test_a_chain_is_decided_as_each_rule_says(rule: Rule) -> None:
    chain, rank = [(0, 1), (1, 2), (2, 3)], [1, 0, 3, 2]
    expected = {
        "components": ([False, True, False, False], [1, 1, 1, 1]),
        "earlier": ([False, True, False, True], [1, 1, 1, 3]),
        "greedy": ([False, True, False, True], [1, 1, 1, 3]),
    }
    kept, leaders = decide(rule, chain, rank)
    assert (kept.tolist(), leaders.tolist()) == expected[rule]


@rules
@repeatably
@given(small_codes(), st.integers(0, 2))
def test_equal_codes_collapsed_first_decide_as_all_pairs_would(rule: Rule, codes: np.ndarray, distance: int) -> None:
    near = np.triu(np.bitwise_count(codes[:, None] ^ codes[None, :]) <= distance, 1)
    edges = np.argwhere(near).tolist()
    expected = slow_leaders(rule, [(a, b) for a, b in edges], list(range(len(codes))))
    assert leaders_within(codes, distance, rule).tolist() == expected


@rules
@repeatably
@given(small_codes(), st.integers(0, 2))
def test_deciding_again_over_what_was_kept_drops_nothing(rule: Rule, codes: np.ndarray, distance: int) -> None:
    leaders = leaders_within(codes, distance, rule)
    kept = codes[leaders == np.arange(len(codes))]
    assert leaders_within(kept, distance, rule).tolist() == list(range(len(kept)))


@pytest.mark.parametrize("rule", ["components", "earlier"])
@repeatably
@given(small_codes(), st.integers(0, 4))
def test_a_larger_radius_never_brings_a_row_back(rule: Rule, codes: np.ndarray, distance: int) -> None:
    rows = np.arange(len(codes))
    smaller, larger = (leaders_within(codes, d, rule) == rows for d in (distance, distance + 1))
    assert (larger <= smaller).all()


@rules
@repeatably
@given(small_codes(), st.integers(0, 2), st.data())
def test_repeating_rows_at_the_end_of_the_rank_changes_nothing_else(
    rule: Rule, codes: np.ndarray, distance: int, data: st.DataObject
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(codes.tolist()), max_size=10)) if len(codes) else []
    before = leaders_within(codes, distance, rule)
    after = leaders_within(np.append(codes, np.array(repeated, np.uint64)), distance, rule)
    assert after[: len(codes)].tolist() == before.tolist()
    assert (after[len(codes) :] < len(codes)).all()


@repeatably
@given(small_codes(), small_codes(), st.integers(0, 4))
def test_the_nearest_other_is_the_first_of_the_equally_near(
    codes: np.ndarray, others: np.ndarray, distance: int
) -> None:
    expected = []
    for code in codes:
        near = [(int(np.bitwise_count(code ^ other)), n) for n, other in enumerate(others)]
        expected.append(min((n for n in near if n[0] <= distance), default=(0, -1))[1])
    assert nearest_between(codes, others, distance).tolist() == expected


def test_a_long_chain_has_one_root_however_its_edges_are_ordered() -> None:
    rows = 100_000
    edges = np.random.default_rng(0).permutation(np.stack([np.arange(rows - 1), np.arange(1, rows)], 1))
    assert not roots([(edges[:, 1], edges[:, 0])], rows).any()


def test_a_rank_that_is_missing_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="rank"):
        RULES["components"]([pairs_within(np.zeros(2, np.uint64), 0)], np.array([0, 0]))
