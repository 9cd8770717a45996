"""Semantic dedup of clustered float16 vectors beside faiss's exact range search: time, recall, peak memory.

    python benchmarks/dedup_semantic.py [--rows 200000] [--width 512] [--cosine 0.95] [--queries 2000] [--threads 2]

Goal: 5 times faster than IndexFlatIP's range search at a recall of 0.99 or more, on two threads. faiss is run for a
sample of queries and extrapolated to all rows; it cannot be asked for each pair only once. Ours is everything from the
vectors in memory to exact pairs of distinct vectors: collapsing, training, choosing the cells per vector by the recall
of a sample, assigning, joining. Its recall is measured by faiss's answers, and by our own measurement on as many
vectors.

The vectors look like CLIP's: a common direction (two random ones have a cosine of about 0.5), a decaying spectrum, and
for half of them clusters of Zipf's sizes inside wider groups; one in ten is a copy at a cosine between 0.94 and 0.97.
"""

import argparse
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from curation.dedup.embeddings.cosine import jobs_within
from curation.dedup.embeddings.cosine_recall import cells_for_recall, measured_recall
from curation.dedup.embeddings.distinct_vectors import distinct
from curation.dedup.embeddings.kmeans import KMeans, digest
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell, pool_centroids
from curation.dedup.join import pairs_of

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
    before_mb = _peak_mb(anew=True)
    seconds, vectors_UD, by_cell, found = _ours(vectors_ND, arguments.cosine, arguments.threads)
    wall_s, cpu_s = (sum(times[n] for times in seconds.values()) for n in range(2))
    stages = ", ".join(f"{what} {times[0]:.1f}" for what, times in seconds.items())
    print(f"ours: {wall_s:.1f} s ({stages}), {cpu_s:.1f} s of CPU")
    print(f"  {len(found):,} pairs of {len(vectors_UD):,} distinct vectors")
    print(f"  peak memory {_peak_mb() - before_mb:,.0f} MB beside the vectors' {vectors_ND.nbytes / 1e6:,.0f}")
    own = measured_recall(by_cell, None, arguments.cosine, arguments.queries)
    print(f"  measured recall {own.estimate:.4f} ({own.found:,} of {own.pairs:,} pairs of {own.sampled:,} vectors)")
    (faiss_wall_s, faiss_cpu_s), recall, pairs = _faiss(
        vectors_UD, found, arguments.cosine, arguments.queries, arguments.threads
    )
    print(f"faiss: {faiss_wall_s:.1f} s, {faiss_cpu_s:.1f} s of CPU, extrapolated from {arguments.queries:,} queries")
    print(f"{faiss_wall_s / wall_s:.1f} times faster, {faiss_cpu_s / cpu_s:.1f} times less CPU (goal {GOAL})")
    print(f"recall {recall:.4f} of the {pairs:,} pairs of faiss's queries (goal {GOAL_RECALL})")


def clip_like(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors of `rows` rows as float16, as the file's head describes them."""
    random = np.random.default_rng(seed)
    spectrum_D = ((1 + np.arange(width)) ** -0.6).astype(np.float32)
    clusters, groups = max(rows // 50, 1), max(rows // 2000, 1)
    originals = rows - rows // 10

    def directions(count: int) -> np.ndarray:
        drawn = random.standard_normal((count, width), np.float32) * spectrum_D
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    centres = 0.45 * directions(groups)[random.integers(0, groups, clusters)] + 0.45 * directions(clusters)
    weights = 1 / (1 + np.arange(clusters)) ** 0.7
    centres = centres[random.choice(clusters, originals, p=weights / weights.sum())]
    centres[random.random(originals) < 0.5] *= 0.3  # as many belong to nothing in particular
    vectors = 0.7 * directions(1) + centres + 0.5 * directions(originals)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copied = vectors[random.integers(0, originals, rows - originals)]
    across = directions(len(copied))
    across -= (across * copied).sum(axis=1, keepdims=True) * copied
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    angles = np.arccos(random.uniform(0.94, 0.97, (len(copied), 1))).astype(np.float32)
    vectors = np.concatenate([vectors, np.cos(angles) * copied + np.sin(angles) * across])
    return vectors[random.permutation(rows)].astype(np.float16)


def _ours(
    vectors_ND: np.ndarray, cosine: Fraction, threads: int
) -> tuple[dict[str, tuple[float, float]], np.ndarray, VectorsByCell, np.ndarray]:
    """Wall and CPU seconds by stage, the distinct vectors, their cells, and the pairs as sorted left · U + right."""
    seconds: dict[str, tuple[float, float]] = {}
    clocks = _clocks()

    def lap(what: str) -> None:
        nonlocal clocks
        seconds[what], clocks = _since(clocks), _clocks()

    vectors_UD, _ = distinct(vectors_ND)
    lap("collapse")
    centroids_KD = pool_centroids(vectors_UD, KMeans(threads=threads))
    lap("train")
    nearest = None if centroids_KD is None else cells_for_recall(vectors_UD, None, centroids_KD, cosine, GOAL_RECALL)
    lap("sample")
    by_cell = VectorsByCell.of(vectors_UD, centroids_KD, nearest, threads=threads)
    lap("assign")
    jobs = jobs_within(by_cell, cosine)
    blocks = [left * len(vectors_UD) + right for left, right, _ in pairs_of(jobs, by_cell.values, threads)]
    lap("join")
    if centroids_KD is not None:
        print(f"centroids {digest(centroids_KD)[:16]}, {by_cell.cells_Up.shape[1]} cells per vector, {len(jobs)} jobs")
    return seconds, vectors_UD, by_cell, np.sort(np.concatenate(blocks))


def _faiss(
    vectors_UD: np.ndarray, found: np.ndarray, cosine: Fraction, queries: int, threads: int
) -> tuple[tuple[float, float], float, int]:
    """Wall and CPU seconds for all rows, extrapolated; the share of the queries' pairs in `found`; their number."""
    import faiss

    faiss.omp_set_num_threads(threads)
    units_UD = vectors_UD.astype(np.float32)
    units_UD /= np.linalg.norm(units_UD, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(units_UD.shape[1])
    index.add(units_UD)
    queries = min(queries, len(units_UD))
    clocks = _clocks()
    limits, _, neighbours = index.range_search(units_UD[:queries], float(cosine))
    wall_s, cpu_s = (seconds * len(units_UD) / queries for seconds in _since(clocks))
    query_P = np.repeat(np.arange(queries), np.diff(limits).astype(np.int64))
    query_P, neighbours = query_P[query_P != neighbours], neighbours[query_P != neighbours]
    wanted = np.minimum(query_P, neighbours) * len(units_UD) + np.maximum(query_P, neighbours)
    places = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
    return (wall_s, cpu_s), float((found[places] == wanted).mean()), len(wanted)


def _clocks() -> tuple[float, float]:
    """Wall and CPU clock, in seconds."""
    return time.perf_counter(), time.process_time()


def _since(clocks: tuple[float, float]) -> tuple[float, float]:
    wall_s, cpu_s = _clocks()
    return wall_s - clocks[0], cpu_s - clocks[1]


def _peak_mb(anew: bool = False) -> float:
    """The process's peak memory, since it was last asked for anew (Linux)."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
