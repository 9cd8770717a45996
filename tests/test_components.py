"""Connected components: their lowest members, forests that stand for their edges, and how large they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from curation.dedup.components import EdgeBlock, component_sizes, roots, spanning_forest
from curation.dedup.survivors import RULES

repeatably = settings(deadline=None, derandomize=True)
NODES = 30
edge_lists = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=40)


def blocks(edges: list[tuple[int, int]], count: int = 1) -> list[EdgeBlock]:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    return [(block[:, 0], block[:, 1]) for block in np.array_split(ends, count)]


def lowest_by_scipy(left_P: np.ndarray, right_P: np.ndarray, nodes: int) -> np.ndarray:
    graph = coo_matrix((np.ones(len(left_P)), (left_P, right_P)), (nodes, nodes))
    _, label_N = connected_components(graph, directed=False)
    lowest = np.full(nodes, nodes)
    np.minimum.at(lowest, label_N, np.arange(nodes))
    return np.asarray(lowest[label_N])


@repeatably
@given(edge_lists, st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_root_is_the_lowest_member_of_scipys_component_however_edges_come(
    edges: list[tuple[int, int]], cuts: int, random: object
) -> None:
    expected = lowest_by_scipy(*blocks(edges)[0], NODES)
    assert roots(blocks(edges, cuts), NODES).tolist() == expected.tolist()
    random.shuffle(edges)  # type: ignore[attr-defined]
    turned = [(right, left) for left, right in edges]
    assert roots(blocks(turned, cuts), NODES).tolist() == expected.tolist()


@pytest.mark.parametrize("edges", [20_000, 50_000, 200_000])
def test_large_random_graphs_have_scipys_components(edges: int) -> None:
    left_P, right_P = np.random.default_rng(edges).integers(0, 50_000, (2, edges))
    assert np.array_equal(roots([(left_P, right_P)], 50_000), lowest_by_scipy(left_P, right_P, 50_000))


@repeatably
@given(edge_lists, st.integers(1, 5))
def test_a_spanning_forest_holds_as_many_of_the_edges_as_connect_what_all_connect(
    edges: list[tuple[int, int]], cuts: int
) -> None:
    forest = list(spanning_forest(blocks(edges, cuts), NODES))
    found = [pair for left_P, right_P in forest for pair in zip(left_P.tolist(), right_P.tolist(), strict=True)]
    root_N = roots(blocks(edges), NODES)
    assert set(found) <= set(edges)
    assert len(found) == NODES - len(np.unique(root_N))
    assert roots(forest, NODES).tolist() == root_N.tolist()


@repeatably
@given(edge_lists, st.integers(2, 5))
def test_forests_of_jobs_merge_to_a_forest_of_all_edges(edges: list[tuple[int, int]], jobs: int) -> None:
    forests = [block for share in blocks(edges, jobs) for block in spanning_forest([share], NODES)]
    merged = list(spanning_forest(forests, NODES))
    assert sum(len(left_P) for left_P, _ in merged) <= NODES - 1
    assert roots(merged, NODES).tolist() == roots(blocks(edges), NODES).tolist()


def test_no_edges_and_no_nodes_are_no_special_case() -> None:
    assert roots([], 3).tolist() == [0, 1, 2]
    assert roots([], 0).tolist() == []
    assert list(spanning_forest([], 0)) == []
    assert component_sizes(roots([], 0), 0).largest == ()


def test_sizes_are_counted_by_powers_of_two_and_the_largest_are_named_with_their_roots() -> None:
    root_N = np.array([0, 1, 1, 1, 4, 5, 5, 7, 7, *[9] * 9])
    sizes = component_sizes(root_N, 1000, most=3)
    assert sizes.components_by_size == {1: 2, 2: 3, 8: 1}
    assert sizes.largest == ((9, 9), (3, 1), (2, 5))


@pytest.mark.parametrize(("pool_rows", "warned"), [(899, True), (900, False), (10_000, False)])
def test_a_component_of_more_than_one_percent_of_the_pool_is_warned_of(pool_rows: int, warned: bool) -> None:
    sizes = component_sizes(np.array([0] * 9), pool_rows)
    assert bool(sizes.warning) == warned
    assert ("9 of 899 rows (1.0 %)" in sizes.warning) == warned


def test_rows_that_are_all_alone_are_never_warned_of() -> None:
    assert component_sizes(np.arange(5), 5).warning == ""


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_decides_a_million_edges_as_it_decides_them_in_pieces(rule: str) -> None:
    random = np.random.default_rng(1)
    rank_N, ends = random.permutation(300_000), random.integers(0, 300_000, (2, 1_000_000))
    whole = RULES[rule]([(ends[0], ends[1])], rank_N)  # type: ignore[index]
    pieces = RULES[rule](zip(np.array_split(ends[1], 7), np.array_split(ends[0], 7), strict=True), rank_N)  # type: ignore[index]
    assert all(np.array_equal(one, other) for one, other in zip(whole, pieces, strict=True))
