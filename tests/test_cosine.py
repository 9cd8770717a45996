"""Joins by cosine against comparing all with all in exact integers."""

import pickle
from fractions import Fraction
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.embeddings import cosine as cosine_join
from curation.dedup.embeddings import distinct_vectors, products, vectors_by_cell
from curation.dedup.embeddings.cells import assigned
from curation.dedup.embeddings.cosine import jobs_between, jobs_within
from curation.dedup.embeddings.cosine_recall import cells_for_recall, measured_recall
from curation.dedup.embeddings.distinct_vectors import distinct
from curation.dedup.embeddings.exact_cosine import Vectors, at_least, cosines, usable
from curation.dedup.embeddings.kmeans import KMeans
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell, cells_per_vector, pool_centroids
from curation.dedup.join import Job, Values, pairs_of
from curation.dedup.survivors import earlier

repeatably = settings(deadline=None, derandomize=True)  # the first call loads compiled code
thresholds = st.sampled_from([Fraction(text) for text in ("0.6", "0.8", "0.95", "0.999", "1")])
Found = list[tuple[int, int]]


@st.composite
def float16_vectors(draw: st.DrawFn, most: int = 12, width: int = 5) -> np.ndarray:
    """Any bits, small whole numbers (for exact cosines) at any scale, and near copies of what was drawn."""
    number = st.integers(0, 0xFFFF)
    vectors = draw(st.lists(st.lists(number, min_size=width, max_size=width), max_size=most // 2))
    vectors_ND = np.array(vectors, np.uint16).reshape(-1, width).view(np.float16)
    whole = draw(st.lists(st.lists(st.integers(-5, 5), min_size=width, max_size=width), max_size=most // 2))
    scale = 2.0 ** draw(st.integers(-24, 12))
    whole_ND = (np.array(whole, np.float64).reshape(-1, width) * scale).astype(np.float16)
    both_ND = np.concatenate([vectors_ND, whole_ND])
    if len(both_ND) and draw(st.booleans()):
        moved_ND = both_ND.view(np.uint16) ^ np.uint16(draw(st.sampled_from([1, 8, 0x8000])))
        both_ND = np.concatenate([both_ND, moved_ND.view(np.float16)])
    return both_ND


def clustered(rows: int, width: int, seed: int = 0, noise: float = 0.25) -> np.ndarray:
    """Unit vectors around some centres: random ones, and close ones for half of the rows."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(rows // 20, 1), width))
    vectors = centres[random.integers(0, len(centres), rows)] + noise * random.standard_normal((rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def integers(vector_D: np.ndarray) -> list[int]:
    return [int(Fraction(float(number)) * 2**24) for number in vector_D]


def dot(x: list[int], y: list[int]) -> int:
    return sum(a * b for a, b in zip(x, y, strict=True))


def is_near(x_D: np.ndarray, y_D: np.ndarray, cosine: Fraction) -> bool:
    x, y = integers(x_D), integers(y_D)
    return dot(x, y) > 0 and dot(x, y) ** 2 >= cosine**2 * dot(x, x) * dot(y, y)


def brute_between(left_UD: np.ndarray, right_VD: np.ndarray, cosine: Fraction) -> Found:
    return [(u, v) for u, x in enumerate(left_UD) for v, y in enumerate(right_VD) if is_near(x, y, cosine)]


def brute_within(vectors_UD: np.ndarray, cosine: Fraction) -> Found:
    return [(u, v) for u, v in brute_between(vectors_UD, vectors_UD, cosine) if u < v]


def found(jobs: list[Job], values: Values, threads: int = 1) -> Found:
    blocks = list(pairs_of(jobs, values, threads))
    return sorted((u, v) for left, right, _ in blocks for u, v in zip(left.tolist(), right.tolist(), strict=True))


def found_within(vectors: VectorsByCell, cosine: Fraction, threads: int = 1) -> Found:
    return found(jobs_within(vectors, cosine), vectors.values, threads)


def found_between(left: VectorsByCell, right: VectorsByCell, cosine: Fraction) -> Found:
    return found(jobs_between(left, right, cosine), left.values + right.values)


@repeatably
@given(float16_vectors(), thresholds)
def test_a_self_join_finds_what_exact_integers_find_each_pair_once(vectors: np.ndarray, cosine: Fraction) -> None:
    vectors_UD = vectors[usable(vectors)]
    assert found_within(VectorsByCell.of(vectors_UD), cosine) == brute_within(vectors_UD, cosine)


@repeatably
@given(float16_vectors(), float16_vectors(), thresholds)
def test_a_join_of_two_sets_finds_what_exact_integers_find(
    left: np.ndarray, right: np.ndarray, cosine: Fraction
) -> None:
    left_UD, right_VD = left[usable(left)], right[usable(right)]
    assert found_between(VectorsByCell.of(left_UD), VectorsByCell.of(right_VD), cosine) == brute_between(
        left_UD, right_VD, cosine
    )


@repeatably
@given(float16_vectors(), thresholds, st.integers(1, 4))
def test_where_every_vector_is_in_every_cell_nothing_is_missed(
    vectors: np.ndarray, cosine: Fraction, cells: int
) -> None:
    vectors_UD = vectors[usable(vectors)]
    centroids_KD = np.eye(5, dtype=np.float16)[:cells]
    left = VectorsByCell.of(vectors_UD, centroids_KD, nearest=cells)
    assert found_within(left, cosine) == brute_within(vectors_UD, cosine)
    assert found_between(left, left, cosine) == brute_between(vectors_UD, vectors_UD, cosine)


@repeatably
@given(float16_vectors(), thresholds, st.integers(1, 3))
def test_a_pair_is_found_once_if_its_vectors_share_a_cell(vectors: np.ndarray, cosine: Fraction, nearest: int) -> None:
    vectors_UD = vectors[usable(vectors)]
    side = VectorsByCell.of(vectors_UD, np.eye(5, dtype=np.float16), nearest=nearest)
    share = [set(cells) for cells in side.cells_Up.tolist()]
    expected = [(u, v) for u, v in brute_within(vectors_UD, cosine) if share[u] & share[v]]
    assert found_within(side, cosine) == expected


@pytest.mark.parametrize("scale", [1, 2**-24, 2**-10, 2**8, 8192])
@pytest.mark.parametrize(
    ("x", "y", "cosine"), [((5, 0), (3, 4), "0.6"), ((5, 0), (4, 3), "0.8"), ((3, 4), (4, 3), "0.96")]
)
def test_a_cosine_exactly_at_the_threshold_is_in_and_any_more_is_out(
    x: tuple[int, int], y: tuple[int, int], cosine: str, scale: float
) -> None:
    vectors_UD = (np.array([x, y]) * scale).astype(np.float16)
    vectors_UD[1] = np.array(y).astype(np.float16)  # lengths may differ
    wide_UD = np.zeros((2, 300), np.float16)
    wide_UD[:, [7, 299]] = vectors_UD
    beyond = Fraction(cosine) + Fraction(1, 10**30)
    for side in (VectorsByCell.of(vectors_UD), VectorsByCell.of(wide_UD)):
        assert found_within(side, Fraction(cosine)) == [(0, 1)]
        assert found_within(side, beyond) == []


def test_the_largest_numbers_do_not_overflow() -> None:
    vectors_UD = np.full((4, 512), 65504, np.float16)
    vectors_UD[1, 0], vectors_UD[2, :256], vectors_UD[3] = 65472, -65504, 2.0**-24
    assert found_within(VectorsByCell.of(vectors_UD), Fraction(1)) == [(0, 3)]
    assert found_within(VectorsByCell.of(vectors_UD), Fraction("0.999")) == brute_within(vectors_UD, Fraction("0.999"))


def test_a_dot_product_below_zero_is_never_near_however_small_the_threshold() -> None:
    tiny = 2.0**-24
    below, above = ([[65472, -tiny], [tiny, 65504]], [[65504, -tiny], [tiny, 65472]])  # cosines of 4e-16
    for vectors, expected in ((below, []), (above, [(0, 1)])):
        side = VectorsByCell.of(np.array(vectors).astype(np.float16))
        assert found_within(side, Fraction(1, 10**16)) == expected


def test_reported_cosines_are_those_of_float64() -> None:
    vectors = VectorsByCell.of(clustered(300, 64))
    exact_UD = clustered(300, 64).astype(np.float64)
    exact_UD /= np.linalg.norm(exact_UD, axis=1, keepdims=True)
    for left, right, cosine in pairs_of(jobs_within(vectors, Fraction("0.9")), vectors.values):
        assert cosine.dtype == np.float32
        assert cosine == pytest.approx((exact_UD[left] * exact_UD[right]).sum(axis=1), abs=1e-6)


@repeatably
@given(float16_vectors())
def test_equal_vectors_collapse_and_what_has_no_direction_is_left_out(vectors: np.ndarray) -> None:
    vectors_UD, group_N = distinct(vectors)
    has_direction_N = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    assert (group_N >= 0).tolist() == has_direction_N.tolist()
    assert vectors_UD[group_N[has_direction_N]].tobytes() == vectors[has_direction_N].tobytes()
    assert len(vectors_UD) == len({vector.tobytes() for vector in vectors[has_direction_N]})


def test_distinct_vectors_are_numbered_by_value_even_where_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.tile(clustered(60, 8), (2, 1))
    shuffled = np.random.default_rng(0).permutation(vectors)
    expected = distinct(vectors)[0].tobytes()
    assert distinct(shuffled)[0].tobytes() == expected
    monkeypatch.setattr(
        distinct_vectors, "_hashes", lambda bits_ND, rows_M: (bits_ND[rows_M, 0] & np.uint16(3)).astype(np.uint64)
    )
    (vectors_UD, group_N), (shuffled_UD, _) = distinct(vectors), distinct(shuffled)
    assert vectors_UD.tobytes() == shuffled_UD.tobytes() != expected
    assert np.bincount(group_N).tolist() == [2] * 60


def value_pairs(vectors_ND: np.ndarray, centroids_KD: np.ndarray, threads: int) -> list[tuple[bytes, bytes]]:
    vectors_UD, _ = distinct(vectors_ND)
    side = VectorsByCell.of(vectors_UD, centroids_KD, threads=threads)
    names = [vector.tobytes() for vector in vectors_UD]
    return [(names[u], names[v]) for u, v in found_within(side, Fraction("0.9"), threads)]


def test_given_centroids_no_order_repetition_or_thread_changes_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors_ND = clustered(2000, 32)
    centroids_KD = KMeans().train(vectors_ND, 20)
    expected = value_pairs(vectors_ND, centroids_KD, 1)
    assert len(expected) > 1000
    shuffled = np.random.default_rng(1).permutation(np.concatenate([vectors_ND, vectors_ND[:300]]))
    monkeypatch.setattr(cosine_join, "_PRODUCTS_PER_JOB", 5000)
    assert value_pairs(shuffled, centroids_KD, 3) == expected


@pytest.mark.parametrize(("strip", "numbers"), [(1, 1), (7, 1), (64, 1 << 22)])
def test_however_a_cell_is_cut_its_pairs_are_the_same(
    strip: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors_UD, others_VD = clustered(150, 16), clustered(90, 16, noise=0.3)
    sides = VectorsByCell.of(vectors_UD), VectorsByCell.of(others_VD)
    expected = found_within(sides[0], Fraction("0.9")), found_between(*sides, Fraction("0.9"))
    assert min(len(pairs) for pairs in expected) > 50
    monkeypatch.setattr(cosine_join, "_STRIP", strip)
    monkeypatch.setattr(cosine_join, "_PRODUCTS_PER_JOB", 100)
    monkeypatch.setattr(cosine_join, "_NUMBERS_PER_TILE", numbers)
    jobs = jobs_within(sides[0], Fraction("0.9"))
    assert len(jobs) > 1
    assert (
        found(pickle.loads(pickle.dumps(jobs)), sides[0].values),
        found_between(*sides, Fraction("0.9")),
    ) == expected


def test_recall_is_the_share_of_true_pairs_that_share_a_cell() -> None:
    vectors_UD = clustered(1500, 24, noise=0.35)
    side = VectorsByCell.of(vectors_UD, KMeans().train(vectors_UD, 40), nearest=1)
    true = set(found_within(VectorsByCell.of(vectors_UD), Fraction("0.85")))
    ours = set(found_within(side, Fraction("0.85")))
    assert ours < true
    everything = measured_recall(side, None, Fraction("0.85"), sampled=len(vectors_UD))
    assert (everything.found, everything.pairs) == (2 * len(ours), 2 * len(true))
    some = measured_recall(side, None, Fraction("0.85"), sampled=300)
    assert (some.found, some.pairs) == tuple(sum((u < 300) + (v < 300) for u, v in pairs) for pairs in (ours, true))
    assert some.estimate == pytest.approx(everything.estimate, abs=0.05)


def test_recall_of_a_join_with_another_set_counts_each_pair_of_the_sample() -> None:
    vectors_UD, others_VD = clustered(600, 24, noise=0.35), clustered(500, 24, noise=0.3)
    centroids_KD = KMeans().train(vectors_UD, 30)
    sides = VectorsByCell.of(vectors_UD, centroids_KD, nearest=1), VectorsByCell.of(others_VD, centroids_KD, nearest=1)
    true = found_between(VectorsByCell.of(vectors_UD), VectorsByCell.of(others_VD), Fraction("0.8"))
    ours = found_between(*sides, Fraction("0.8"))
    recall = measured_recall(*sides, Fraction("0.8"), sampled=600)
    assert 0 < len(ours) < len(true)
    assert (recall.found, recall.pairs, recall.sampled) == (len(ours), len(true), 600)


@pytest.mark.parametrize("others_VD", [None, clustered(700, 12, seed=1, noise=2)])
def test_cells_for_a_recall_are_the_fewest_that_find_so_many_pairs_of_the_sample(others_VD: np.ndarray | None) -> None:
    vectors_UD, cosine = clustered(900, 12, noise=2), Fraction("0.7")
    centroids_KD = KMeans().train(vectors_UD, 60)

    def recall(nearest: int) -> float:
        right = None if others_VD is None else VectorsByCell.of(others_VD, centroids_KD, nearest)
        return measured_recall(VectorsByCell.of(vectors_UD, centroids_KD, nearest), right, cosine, 900).estimate

    for wanted in (0.95, 0.999):
        nearest = cells_for_recall(vectors_UD, others_VD, centroids_KD, cosine, wanted, sampled=900)
        assert recall(nearest) >= wanted > recall(nearest - 1)
    assert nearest > cells_for_recall(vectors_UD, None, centroids_KD, Fraction(1)) == cells_per_vector(60) == 3
    assert cells_for_recall(vectors_UD, None, centroids_KD[:2], cosine) == 2


def test_small_pools_are_compared_all_with_all_and_large_ones_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors_UD = clustered(3000, 32)
    assert pool_centroids(vectors_UD, KMeans()) is None
    monkeypatch.setattr(vectors_by_cell, "MOST_IN_ONE_CELL", 1000)
    centroids_KD = pool_centroids(vectors_UD, KMeans())
    assert centroids_KD is not None
    assert len(centroids_KD) >= 68
    side = VectorsByCell.of(vectors_UD, centroids_KD)
    assert side.cells_Up.shape[1] == cells_per_vector(len(centroids_KD)) == 3
    assert measured_recall(side, None, Fraction("0.95")).estimate >= 0.99


def test_pairs_are_those_of_faiss() -> None:
    vectors_UD = clustered(2000, 64)
    units_UD = vectors_UD.astype(np.float32)
    units_UD /= np.linalg.norm(units_UD, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(64)
    index.add(units_UD)
    limits, _, neighbours = index.range_search(units_UD, 0.95)
    queries = np.repeat(np.arange(len(units_UD)), np.diff(limits.astype(np.int64)))
    expected = sorted((u, v) for u, v in zip(queries.tolist(), neighbours.tolist(), strict=True) if u < v)
    assert len(expected) > 100
    assert found_within(VectorsByCell.of(vectors_UD), Fraction("0.95")) == expected


@repeatably
@given(float16_vectors())
def test_a_product_of_floats_lies_within_its_error_of_the_exact_cosine(vectors: np.ndarray) -> None:
    vectors_UD = vectors[usable(vectors)]
    measured = Vectors.of(vectors_UD)
    units_UD = measured.units(np.arange(len(vectors_UD)), np.empty(vectors_UD.shape, np.float32))
    left, right = (side.ravel() for side in np.indices((len(vectors_UD), len(vectors_UD))))
    products_UU = (units_UD @ units_UD.T).ravel()
    assert (np.abs(products_UU - cosines(measured, measured, left, right)) <= products.error(5)).all()


def test_products_that_are_off_by_their_error_change_no_cell_and_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.random.default_rng(0).integers(-2, 3, (600, 6))  # many cosines are equal, or exactly at the threshold
    vectors_UD = whole[whole.any(axis=1)].astype(np.float16)
    centroids_KD, multiply = vectors_UD[:40], products._products

    def pairs_and_cells() -> tuple[Found, list[list[int]]]:
        by_cell = VectorsByCell.of(vectors_UD, centroids_KD, nearest=4)
        return found_within(by_cell, Fraction("0.8")), by_cell.cells_Up.tolist()

    expected = pairs_and_cells()
    off = np.random.default_rng(1)

    def multiplied(left: Any, right: Any, scratch: np.ndarray) -> np.ndarray:
        exactly_LR = multiply(left, right, scratch)
        return exactly_LR + 0.9 * products.error(6) * off.choice([-1, 1], exactly_LR.shape).astype(np.float32)

    monkeypatch.setattr(products, "_products", multiplied)
    assert pairs_and_cells() == expected


def test_torch_on_a_device_names_the_same_candidates() -> None:
    measured = Vectors.of(clustered(200, 16))
    units_UD = measured.units(np.arange(200), np.empty((200, 16), np.float32))
    rows, cells = (products.placed(part, "cpu") for part in (units_UD, units_UD[:30]))
    scratch = np.empty(6000, np.float32)
    for ours, theirs in (
        (products.at_least(rows, cells, 0.8, scratch), products.at_least_on_device(rows, cells, 0.8)),
        (products.near_best(rows, cells, 3, 0.01, scratch), products.near_best_on_device(rows, cells, 3, 0.01)),
    ):
        assert len(ours[0]) > 200
        assert [side.tolist() for side in ours] == [side.tolist() for side in theirs]


@repeatably
@given(float16_vectors(), thresholds)
def test_a_stricter_threshold_is_decided_over_the_pairs_of_a_looser_one(vectors: np.ndarray, cosine: Fraction) -> None:
    vectors_UD = vectors[usable(vectors)]
    loose = found_within(VectorsByCell.of(vectors_UD), Fraction("0.5"))
    left, right = (np.array([pair[n] for pair in loose], np.int64) for n in range(2))
    measured = Vectors.of(vectors_UD)
    is_near_P, _ = at_least(cosine, measured, measured, left, right)
    assert [pair for pair, near in zip(loose, is_near_P, strict=True) if near] == brute_within(vectors_UD, cosine)


def semdedup(vectors_ND: np.ndarray, cell_N: np.ndarray, cosine_N: np.ndarray, epsilon: float) -> set[int]:
    """The published rule, by cluster: least similar to the centroid first; drop what resembles one before it."""
    kept = set()
    for cell in set(cell_N.tolist()):
        rows = sorted(np.flatnonzero(cell_N == cell).tolist(), key=lambda row: (cosine_N[row], row))
        units = vectors_ND[rows].astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        similar = np.triu(units @ units.T, 1)
        kept |= {row for n, row in enumerate(rows) if similar[:, n].max() < 1 - epsilon}
    return kept


def test_earlier_in_the_order_of_the_cosine_to_the_centroid_is_semdedup() -> None:
    vectors_ND = clustered(1200, 32)
    centroids_KD = KMeans().train(vectors_ND, 12)
    cell_N, cosine_N = assigned(vectors_ND, centroids_KD)
    vectors = VectorsByCell.of(vectors_ND, centroids_KD, nearest=1)
    edges = [block[:2] for block in pairs_of(jobs_within(vectors, Fraction("0.93")), vectors.values)]
    rank_N = np.empty(len(vectors_ND), np.int64)
    rank_N[np.lexsort((np.arange(len(vectors_ND)), cosine_N))] = np.arange(len(vectors_ND))
    kept_N, _ = earlier(edges, rank_N)
    expected = semdedup(vectors_ND, cell_N, cosine_N, 0.07)
    assert 100 < len(expected) < 1100
    assert set(np.flatnonzero(kept_N).tolist()) == expected


def test_vectors_of_another_type_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="float32"):
        VectorsByCell.of(np.ones((2, 2), np.float32))
    with pytest.raises(AssertionError, match="cosine"):
        jobs_within(VectorsByCell.of(np.ones((2, 2), np.float16)), Fraction(0))
