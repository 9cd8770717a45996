"""The centroids of a pool's embeddings, trained once and captured."""

import hashlib
from typing import Any

import numpy as np

from curation.dedup.embeddings.distinct_vectors import distinct
from curation.dedup.embeddings.kmeans import SAMPLE_PER_CELL, KMeans, digest
from curation.selection.likeness.devices import device, processors
from curation.selection.step import Desk
from curation.storage.captured import captured_vectors

VERSION = 1


def centroids_of(vectors_ND: np.ndarray, cells: int, seed: int, desk: Desk) -> tuple[np.ndarray | None, dict[str, Any]]:
    """float16 `centroids_KD` for float16 vectors, with facts; None where no vector has a direction.

    K is at most the number of distinct vectors. The sample is the first 64 distinct vectors per cell by a hash of
    their bytes: no order of rows decides it.
    """
    distinct_UD = distinct(vectors_ND)[0]
    if not len(distinct_UD):
        return None, {}
    cells = min(cells, len(distinct_UD))
    sample_SD = distinct_UD[: cells * SAMPLE_PER_CELL]
    named = ["cells", VERSION, cells, seed, hashlib.sha256(np.ascontiguousarray(sample_SD).tobytes()).hexdigest()]
    kmeans = KMeans(seed=seed, device=device(), threads=processors())
    centroids_KD = captured_vectors(desk.store, named, lambda: kmeans.train(sample_SD, cells))
    assert centroids_KD is not None
    return centroids_KD, {"cells": len(centroids_KD), "sample": len(sample_SD), "centroids": digest(centroids_KD)}
