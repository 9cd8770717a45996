"""Semantic dedup of clustered float16 vectors beside faiss's exact range search: time, recall, peak memory.

    python benchmarks/dedup_semantic.py [--rows 200000] [--width 512] [--cosine 0.95] [--queries 2000] [--threads 2]

Goal: 5 times faster than IndexFlatIP's range search at a recall of 0.99 or more, on two threads. faiss is run for a
sample of queries and extrapolated to all rows; it is not asked for each pair once, which it cannot. Ours is everything
from the vectors in memory to exact pairs of distinct vectors: collapsing, training, assigning, joining. Its recall is
measured by faiss's answers to the sample, and by our own measurement, which a run reports.

The vectors look like CLIP's: a common direction (two random ones have a cosine of about 0.5), clusters of Zipf's
sizes inside wider groups, a decaying spectrum; one in ten has a copy moved to a cosine between 0.93 and 0.99.
"""

import argparse
import resource
import time
from fractions import Fraction

import numpy as np

from curation.dedup.cosine import Side, join_within, measured_recall, trained_centroids
from curation.dedup.distinct_vectors import DistinctVectors
from curation.dedup.join import pairs_of
from curation.dedup.kmeans import KMeans, digest

GOAL, GOAL_RECALL = 5.0, 0.99


def main() -> None:
    """Print both times, the ratio, recall and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cosine", type=Fraction, default=Fraction("0.95"))
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    vectors_ND = clip_like(arguments.rows, arguments.width)
    _ours(clip_like(2000, arguments.width), arguments.cosine, arguments.threads)  # loads compiled code
    before_mb = _peak_mb()
    seconds, distinct, side, found = _ours(vectors_ND, arguments.cosine, arguments.threads)
    print(f"ours: {sum(seconds.values()):.1f} s ({', '.join(f'{what} {s:.1f}' for what, s in seconds.items())})")
    print(f"  {len(found):,} pairs of {len(side.cells_Up):,} distinct vectors, {len(side.starts_K) - 1} cells")
    print(
        f"  peak memory {_peak_mb():,.0f} MB, of which {before_mb:,.0f} before; vectors {vectors_ND.nbytes / 1e6:,.0f}"
    )
    own = measured_recall(side, None, arguments.cosine)
    print(f"  measured recall {own.estimate:.4f} ({own.found:,} of {own.pairs:,} pairs of {own.sampled:,} vectors)")
    faiss_s, recall, pairs = _faiss(distinct, found, arguments.cosine, arguments.queries, arguments.threads)
    print(f"faiss: {faiss_s:.1f} s, extrapolated from {arguments.queries:,} queries")
    ratio = faiss_s / sum(seconds.values())
    print(f"ratio {ratio:.1f} (goal {GOAL}), recall {recall:.4f} of {pairs:,} pairs (goal {GOAL_RECALL})")


def clip_like(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors of `rows` rows as float16, as the file's head describes them."""
    random = np.random.default_rng(seed)
    spectrum_D = (1 + np.arange(width)) ** -0.4
    clusters = max(rows // 50, 1)

    def directions(count: int) -> np.ndarray:
        drawn = random.standard_normal((count, width), np.float32) * spectrum_D.astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    centres = 0.45 * directions(max(clusters // 40, 1))[random.integers(0, max(clusters // 40, 1), clusters)]
    centres += 0.45 * directions(clusters)
    weights = 1 / (1 + np.arange(clusters)) ** 0.7
    originals = rows - rows // 10
    vectors = 0.7 * directions(1) + centres[random.choice(clusters, originals, p=weights / weights.sum())]
    vectors += random.uniform(0.3, 0.5, (originals, 1)).astype(np.float32) * directions(originals)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copied = vectors[random.integers(0, originals, rows - originals)]
    across = directions(len(copied))
    across -= (across * copied).sum(axis=1, keepdims=True) * copied
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angles = np.arccos(random.uniform(0.93, 0.99, (len(copied), 1))).astype(np.float32)
    vectors = np.concatenate([vectors, np.cos(angles) * copied + np.sin(angles) * across])
    return vectors[random.permutation(rows)].astype(np.float16)


def _ours(
    vectors_ND: np.ndarray, cosine: Fraction, threads: int
) -> tuple[dict[str, float], DistinctVectors, Side, np.ndarray]:
    """Seconds by stage, the distinct vectors, their cells, and the pairs found as sorted left · U + right."""
    seconds = {}
    clock = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal clock
        seconds[what], clock = time.perf_counter() - clock, time.perf_counter()

    distinct = DistinctVectors.of(vectors_ND)
    lap("collapse")
    centroids_KD = trained_centroids(distinct.vectors_UD, KMeans(threads=threads))
    lap("train")
    side = Side.of(distinct.vectors_UD, centroids_KD, threads=threads)
    lap("assign")
    jobs, values = join_within(side, cosine)
    blocks = [left * len(distinct.first_U) + right for left, right, _ in pairs_of(jobs, values, threads)]
    lap("join")
    if centroids_KD is not None:
        print(f"centroids {digest(centroids_KD)[:16]}, {side.cells_Up.shape[1]} cells per vector, {len(jobs)} jobs")
    return seconds, distinct, side, np.sort(np.concatenate(blocks))


def _faiss(
    distinct: DistinctVectors, found: np.ndarray, cosine: Fraction, queries: int, threads: int
) -> tuple[float, float, int]:
    """Seconds for all rows, extrapolated; the share of the queries' pairs that is in `found`; and their number."""
    import faiss

    faiss.omp_set_num_threads(threads)
    units_UD = distinct.vectors_UD.astype(np.float32)
    units_UD /= np.linalg.norm(units_UD, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(units_UD.shape[1])
    index.add(units_UD)
    queries = min(queries, len(units_UD))
    clock = time.perf_counter()
    limits, _, neighbours = index.range_search(units_UD[:queries], float(cosine))
    seconds = time.perf_counter() - clock
    query_P = np.repeat(np.arange(queries), np.diff(limits.astype(np.int64)))
    query_P, neighbours = query_P[query_P != neighbours], neighbours[query_P != neighbours]
    wanted = np.minimum(query_P, neighbours) * len(units_UD) + np.maximum(query_P, neighbours)
    places = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
    return seconds * len(units_UD) / queries, float((found[places] == wanted).mean()), len(wanted)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
