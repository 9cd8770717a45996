"""Spherical k-means, the cells it makes, and DataComp's image-based filter."""

from fractions import Fraction

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.embeddings import kmeans as kmeans_module
from curation.dedup.embeddings.cells import assigned, nearest_cells
from curation.dedup.embeddings.exact_cosine import Vectors
from curation.dedup.embeddings.kmeans import KMeans, digest, sample_rows
from curation.dedup.embeddings.nearest_centroids import near_reference

repeatably = settings(deadline=None, derandomize=True)  # the first call loads compiled code


def clustered(rows: int, width: int = 32, clusters: int = 30, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, width))
    vectors = centres[random.integers(0, clusters, rows)] + 0.4 * random.standard_normal((rows, width))
    return (vectors * random.uniform(0.1, 30, (rows, 1))).astype(np.float16)


def whole_vectors(least: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Vectors of small whole numbers, none zero: many lie equally near to two others."""
    number = st.integers(-2, 2)
    vector = st.lists(number, min_size=3, max_size=3).filter(any)
    return st.lists(vector, min_size=least, max_size=8).map(lambda vectors: np.array(vectors, np.float16))


def squared_cosine(x_D: np.ndarray, y_D: np.ndarray) -> Fraction:
    """sign(cosine) · cosine², which orders as the cosine does, exactly."""
    x, y = ([int(number) for number in vector] for vector in (x_D, y_D))
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return Fraction(abs(dot) * dot, sum(a * a for a in x) * sum(b * b for b in y))


def mean_cosine(vectors_ND: np.ndarray, centroids_KD: np.ndarray) -> float:
    return float(assigned(vectors_ND, centroids_KD)[1].mean())


@repeatably
@given(whole_vectors(), whole_vectors(3), st.integers(1, 3))
def test_the_nearest_cells_are_those_of_exact_cosines_with_ties_to_the_lowest(
    vectors: np.ndarray, centroids: np.ndarray, nearest: int
) -> None:
    cells, cosine = nearest_cells(Vectors.of(vectors), Vectors.of(centroids), nearest)
    for vector, found, cosines in zip(vectors, cells.tolist(), cosine.tolist(), strict=True):
        exact = [squared_cosine(vector, centroid) for centroid in centroids]
        assert [exact[cell] for cell in found] == sorted(exact, reverse=True)[:nearest]
        assert len(set(found)) == nearest
        assert [c * abs(c) for c in cosines] == pytest.approx([float(exact[cell]) for cell in found])


def test_of_equal_centroids_the_lowest_is_the_nearest() -> None:
    centroids_KD = np.repeat(clustered(5), 3, axis=0)
    cell_N, _ = assigned(clustered(500), centroids_KD)
    assert set(cell_N.tolist()) <= {0, 3, 6, 9, 12}


def test_cells_do_not_depend_on_the_order_of_rows_or_on_threads() -> None:
    vectors_ND, centroids_KD = clustered(9000), clustered(600, seed=1)
    order_N = np.random.default_rng(0).permutation(len(vectors_ND))
    cell_N, cosine_N = assigned(vectors_ND, centroids_KD)
    shuffled = assigned(vectors_ND[order_N], centroids_KD, threads=3)
    assert (shuffled[0] == cell_N[order_N]).all()
    assert shuffled[1].tobytes() == cosine_N[order_N].tobytes()


def test_a_vector_without_a_direction_has_no_cell() -> None:
    vectors_ND = np.array([[1, 0], [np.nan, 1], [0, 0], [np.inf, 1], [0, -0.0], [0, 6e-8]], np.float16)
    cell_N, cosine_N = assigned(vectors_ND, np.array([[1, 0], [0, 1]], np.float16))
    assert (cell_N.dtype, cosine_N.dtype) == (np.int32, np.float32)
    assert cell_N.tolist() == [0, -1, -1, -1, -1, 1]
    assert np.isnan(cosine_N).tolist() == [False, True, True, True, True, False]
    assert assigned(vectors_ND[:0], vectors_ND[:1])[0].tolist() == []


def test_a_seed_gives_the_same_centroids_on_any_number_of_threads_and_another_seed_others() -> None:
    vectors_ND = clustered(3000)
    once = KMeans(seed=3).train(vectors_ND, 40)
    assert digest(KMeans(seed=3, threads=3).train(vectors_ND, 40)) == digest(once)
    assert digest(KMeans(seed=4).train(vectors_ND, 40)) != digest(once)


def test_centroids_are_unit_vectors() -> None:
    lengths = np.linalg.norm(KMeans().train(clustered(2000), 50).astype(np.float64), axis=1)
    assert lengths == pytest.approx(1, abs=1e-3)


def test_iterations_bring_vectors_nearer_to_their_centroids() -> None:
    vectors_ND = clustered(3000)
    means = [mean_cosine(vectors_ND, KMeans(iterations=n).train(vectors_ND, 40)) for n in (0, 1, 3, 10)]
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.01


def test_centroids_fit_as_well_as_those_of_faiss() -> None:
    vectors_ND = clustered(4000, clusters=100)
    units_ND = vectors_ND.astype(np.float32)
    units_ND /= np.linalg.norm(units_ND, axis=1, keepdims=True)
    theirs = faiss.Kmeans(32, 60, niter=10, spherical=True, seed=1, max_points_per_centroid=1000)
    theirs.train(units_ND)
    ours = mean_cosine(vectors_ND, KMeans().train(vectors_ND, 60))
    assert ours > mean_cosine(vectors_ND, theirs.centroids.astype(np.float16)) - 0.01


def test_empty_cells_restart_so_that_every_direction_has_one() -> None:
    directions = np.eye(6, dtype=np.float16)
    sample_SD = np.concatenate([np.repeat(directions[:1], 200, axis=0), directions])  # 7 of 206 start anywhere else
    centroids_KD = KMeans().train(sample_SD, 6)
    assert sorted(centroids_KD.tolist()) == sorted(directions.tolist())


def test_vectors_that_cancel_leave_their_centroid_where_it_was() -> None:
    centroids_KD = KMeans().train(np.array([[1, 0], [-1, 0]], np.float16), 1)
    assert centroids_KD.tolist() in ([[1, 0]], [[-1, 0]])


def test_many_cells_are_trained_in_two_levels_in_proportion_to_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors_ND = np.concatenate([clustered(900, clusters=1), clustered(2100, clusters=30, seed=1)])
    flat = mean_cosine(vectors_ND, KMeans().train(vectors_ND, 100))
    monkeypatch.setattr(kmeans_module, "_MOST_IN_ONE_LEVEL", 20)
    centroids_KD = KMeans().train(vectors_ND, 100)
    assert len(centroids_KD) == 100
    assert mean_cosine(vectors_ND, centroids_KD) > flat - 0.01
    in_the_large_group = len(set(assigned(vectors_ND[:900], centroids_KD)[0].tolist()))
    assert 25 <= in_the_large_group <= 35


def test_vectors_of_one_direction_can_be_asked_for_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_module, "_MOST_IN_ONE_LEVEL", 5)
    same_ND = np.ones((50, 4), np.float16)
    assert KMeans().train(same_ND, 30).tolist() == [[0.5] * 4] * 30


@repeatably
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.data())
def test_shares_are_within_one_of_the_proportion_and_add_up(sizes: list[int], data: st.DataObject) -> None:
    cells = data.draw(st.integers(1, sum(sizes)))
    shares = kmeans_module._shares(np.array(sizes), cells).tolist()
    assert sum(shares) == cells
    for share, size in zip(shares, sizes, strict=True):
        assert abs(share - size * cells / sum(sizes)) < 1
        assert share <= size


def test_large_cells_are_divided_and_others_stay() -> None:
    vectors_ND = np.concatenate([clustered(2000, clusters=1), clustered(500, clusters=20, seed=1)])
    centroids_KD = KMeans(iterations=3).train(vectors_ND, 10)
    before = np.bincount(assigned(vectors_ND, centroids_KD)[0])
    after_KD = KMeans().split_large(vectors_ND, centroids_KD, 300)
    after = np.bincount(assigned(vectors_ND, after_KD)[0])
    assert before.max() > 300 >= after.max()
    stays = {centroid.tobytes() for centroid in centroids_KD[before <= 300]}
    assert stays < {centroid.tobytes() for centroid in after_KD}


def test_the_digest_tells_values_and_shapes_apart() -> None:
    centroids_KD = clustered(6, width=4)
    digests = {digest(centroids_KD), digest(centroids_KD.reshape(4, 6)), digest(centroids_KD[::-1])}
    assert len(digests) == 3
    assert digest(centroids_KD[::2]) == digest(centroids_KD[::2].copy())


def test_a_sample_is_the_same_rows_in_the_same_order_however_the_pool_is_ordered() -> None:
    random = np.random.default_rng(0)
    hash_N = random.integers(0, 2**64, 1000, dtype=np.uint64)
    order_N = random.permutation(1000)
    sampled = hash_N[sample_rows(hash_N, 100, seed=5)]
    assert sampled.tolist() == hash_N[order_N][sample_rows(hash_N[order_N], 100, seed=5)].tolist()
    assert len(set(sampled.tolist())) == 100
    assert sampled.tolist() == hash_N[sample_rows(hash_N, 200, seed=5)][:100].tolist()
    assert set(sampled.tolist()) != set(hash_N[sample_rows(hash_N, 100, seed=6)].tolist())
    assert len(sample_rows(hash_N, 2000)) == 1000


@repeatably
@given(whole_vectors(), whole_vectors(), whole_vectors(2))
def test_rows_near_a_reference_are_those_whose_nearest_centroid_is_a_references(
    vectors: np.ndarray, reference: np.ndarray, centroids: np.ndarray
) -> None:
    def nearest(vector_D: np.ndarray) -> list[Fraction]:
        return [squared_cosine(vector_D, centroid_D) for centroid_D in centroids]

    kept_N, cell_N = near_reference(vectors, reference, centroids)
    hit = set(assigned(reference, centroids)[0].tolist())
    assert all(nearest(v)[assigned(v[None], centroids)[0][0]] == max(nearest(v)) for v in reference)
    assert kept_N.tolist() == [cell in hit for cell in cell_N.tolist()]
    assert all(nearest(vector)[cell] == max(nearest(vector)) for vector, cell in zip(vectors, cell_N, strict=True))


def test_a_reference_without_a_direction_keeps_nothing() -> None:
    nothing = np.array([[0, 0], [np.nan, 1]], np.float16)
    vectors_ND = np.concatenate([np.eye(2, dtype=np.float16), nothing])
    assert near_reference(vectors_ND, nothing, vectors_ND[:2])[0].tolist() == [False] * 4
    kept_N, cell_N = near_reference(vectors_ND, vectors_ND[1:], vectors_ND[:2])
    assert (kept_N.tolist(), cell_N.tolist()) == ([False, True, False, False], [0, 1, -1, -1])
