"""Embeddings, as near as their directions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.cosine import jobs_between, jobs_within
from curation.dedup.cosine_recall import measured_recall
from curation.dedup.distinct_vectors import distinct
from curation.dedup.exact_cosine import Vectors, at_least
from curation.dedup.join import PairBlock
from curation.dedup.kmeans import KMeans, digest
from curation.dedup.vectors_by_cell import VectorsByCell, cells_per_vector, pool_centroids
from curation.selection.inputs import halves
from curation.selection.likeness.devices import device
from curation.selection.likeness.likeness import Search, Side
from curation.selection.step import Desk
from curation.storage.captured import captured_vectors
from schemas.errors import RunError

VERSION = 1


@dataclass(frozen=True)
class _Held:
    """Distinct vectors; measured once they must be compared exactly."""

    vectors_UD: np.ndarray

    @cached_property
    def measured(self) -> Vectors:
        return Vectors.of(self.vectors_UD)


@dataclass(frozen=True)
class Cosine:
    """Vectors whose cosine is at least that; `recall` asks for more cells per vector until so much is found."""

    least: Fraction
    recall: float | None = None

    @property
    def identity(self) -> list[Any]:
        """The algorithm; the centroids are named by the vectors, and captured."""
        return ["cosine", VERSION, self.recall]

    @property
    def threshold(self) -> str:
        """The cosine as a fraction."""
        return str(self.least)

    @property
    def words(self) -> str:
        """For reasons."""
        return f"with a cosine of {float(self.least):g} or more to"

    def sides(self, tables: Sequence[pa.Table]) -> list[Side]:
        """The distinct vectors; NULL, zeros, NaN and infinity have no direction."""
        sides = [_side(table) for table in tables]
        widths = {side.held.vectors_UD.shape[1] for side in sides if side.groups}
        if len(widths) > 1:
            raise RunError(f"embeddings of {' and '.join(map(str, sorted(widths)))} numbers do not compare")
        return sides

    def search(self, side: Side, other: Side | None, desk: Desk) -> Search:
        """All with all where there are few; else inside the cells of a k-means, with a measured recall."""
        vectors_UD, where = side.held.vectors_UD, device()
        named = ["centroids", VERSION, side.digest]
        centroids_KD = captured_vectors(desk.store, named, lambda: pool_centroids(vectors_UD, KMeans(device=where)))
        nearest = None if centroids_KD is None else cells_per_vector(len(centroids_KD))
        while True:
            cells = VectorsByCell.of(vectors_UD, centroids_KD, nearest, where)
            others = None if other is None else VectorsByCell.of(other.held.vectors_UD, centroids_KD, nearest, where)
            if centroids_KD is None or nearest is None:
                facts: dict[str, Any] = {"recall": 1.0}
                break
            measured = measured_recall(cells, others, self.least, device=where)
            facts = {
                "recall": round(measured.estimate, 4),
                "recall_of_pairs": measured.pairs,
                "recall_of_rows": measured.sampled,
                "cells": len(centroids_KD),
                "cells_per_vector": nearest,
                "centroids": digest(centroids_KD),
            }
            if self.recall is None or measured.estimate >= self.recall or nearest == len(centroids_KD):
                break
            nearest = min(2 * nearest, len(centroids_KD))
        if others is None:
            return Search(jobs_within(cells, self.least, where), cells.values, facts)
        return Search(jobs_between(cells, others, self.least, where), cells.values + others.values, facts)

    def covers(self, threshold: str) -> bool:
        """A lower threshold has found it."""
        return Fraction(threshold) <= self.least

    def distances(self, block: PairBlock, side: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
        """1 minus the cosine; whether it is high enough is decided in whole numbers."""
        left_P, right_P, cosine_P = block
        near = cosine_P.astype(np.float64)
        is_near_P = near >= float(self.least) - 1e-6
        undecided = np.flatnonzero(np.abs(near - float(self.least)) <= 1e-6)
        if len(undecided):
            left, right = left_P[undecided], right_P[undecided]
            is_near_P[undecided], _ = at_least(self.least, side.held.measured, other.held.measured, left, right)
        return is_near_P, 1 - near


def _side(table: pa.Table) -> Side:
    vectors_ND, is_valid_N = halves(table["by_0"])
    vectors_UD, group_N = distinct(vectors_ND)
    named = hashlib.sha256(np.ascontiguousarray(vectors_UD).tobytes()).hexdigest()
    without = int((is_valid_N & (group_N < 0)).sum())
    facts = {"without_direction": without} if without else {}
    return Side(group_N, len(vectors_UD), named, _Held(vectors_UD), facts)
