"""Embeddings, as near as their directions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.embeddings.cosine import jobs_between, jobs_within
from curation.dedup.embeddings.cosine_recall import cells_for_recall, measured_recall
from curation.dedup.embeddings.distinct_vectors import distinct
from curation.dedup.embeddings.exact_cosine import Vectors, at_least
from curation.dedup.embeddings.kmeans import KMeans, digest
from curation.dedup.embeddings.vectors_by_cell import VectorsByCell, pool_centroids
from curation.dedup.join import PairBlock
from curation.selection.inputs import halves, outgrows_memory
from curation.selection.likeness.devices import device, processors
from curation.selection.likeness.likeness import Search, Side
from curation.selection.likeness.spilled_cosine import SpilledSearch, recall_facts, spilled_side
from curation.selection.step import Desk
from curation.storage.captured import captured_vectors
from schemas.errors import RunError

VERSION = 1
_RECALL = 0.99  # of the pairs of a sample, where nothing else is asked for


@dataclass(frozen=True)
class _Held:
    """Distinct vectors in memory."""

    vectors_UD: np.ndarray

    def taken(self, numbers_M: np.ndarray) -> np.ndarray:
        return self.vectors_UD[numbers_M]


@dataclass(frozen=True)
class Cosine:
    """Vectors whose cosine is at least that; `recall` of the pairs is to be found, 0.99 unless said."""

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
        return f"with a cosine of {float(self.least):g} or more"

    @property
    def preposition(self) -> str:
        """For reasons."""
        return "to"

    def sides(self, tables: Sequence[pa.Table], desk: Desk, folder: Path) -> list[Side]:
        """The distinct vectors; NULL, zeros, NaN and infinity have no direction."""
        columns = [table["by_0"] for table in tables]
        widths = {column.type.byte_width // 2 for column in columns if column.null_count < len(column)}
        if len(widths) > 1:
            raise RunError(f"embeddings of {' and '.join(map(str, sorted(widths)))} numbers do not compare")
        if outgrows_memory(sum(column.nbytes for column in columns)):
            return [spilled_side(column, folder / str(number), desk) for number, column in enumerate(columns)]
        return [_side(column) for column in columns]

    def search(self, side: Side, other: Side | None, desk: Desk, folder: Path, *, forest: bool = False) -> Search:
        """All with all where there are few; else inside the cells of a k-means, with a measured recall."""
        wanted = _RECALL if self.recall is None else self.recall
        if side.spilled:
            named = ["centroids", VERSION, side.digest]
            return SpilledSearch(self.least, wanted, forest, desk, named).of(side, other)
        vectors_UD, others_VD = side.held.vectors_UD, None if other is None else other.held.vectors_UD
        where, many = device(), processors()
        named = ["centroids", VERSION, side.digest]
        centroids_KD = captured_vectors(
            desk.store, named, lambda: pool_centroids(vectors_UD, KMeans(device=where, threads=many))
        )
        if centroids_KD is None:
            nearest, facts = None, dict[str, Any](recall=1.0)
        else:
            nearest = cells_for_recall(vectors_UD, others_VD, centroids_KD, self.least, wanted, device=where)
            facts = {"cells": len(centroids_KD), "cells_per_vector": nearest, "centroids": digest(centroids_KD)}
        cells = VectorsByCell.of(vectors_UD, centroids_KD, nearest, where, many)
        others = None if others_VD is None else VectorsByCell.of(others_VD, centroids_KD, nearest, where, many)
        if centroids_KD is not None:
            facts |= recall_facts(measured_recall(cells, others, self.least, device=where))
        if others is None:
            return Search([(jobs_within(cells, self.least, where), cells.values)], facts)
        return Search([(jobs_between(cells, others, self.least, where), cells.values + others.values)], facts)

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
            left, right = (
                Vectors.of(held.taken(numbers_P[undecided]))
                for held, numbers_P in ((side.held, left_P), (other.held, right_P))
            )
            each = np.arange(len(undecided))
            is_near_P[undecided], _ = at_least(self.least, left, right, each, each)
        return is_near_P, 1 - near


def _side(column: pa.ChunkedArray) -> Side:
    vectors_ND, is_valid_N = halves(column)
    vectors_UD, group_N = distinct(vectors_ND)
    named = hashlib.sha256(np.ascontiguousarray(vectors_UD).tobytes()).hexdigest()
    without = int((is_valid_N & (group_N < 0)).sum())
    facts = {"without_direction": without} if without else {}
    return Side(group_N, len(vectors_UD), named, _Held(vectors_UD), facts)
