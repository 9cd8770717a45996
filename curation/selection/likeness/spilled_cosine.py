"""Embeddings that outgrow memory, joined by stages whose jobs each have a share of them: the pairs are the same.

N: rows; U: distinct vectors; S: vectors of a sample; K: cells; G: groups of cells; D: numbers per vector. The stages:
collapse shares of the rows, then ranges of hashes; train on the first vectors; look in how many cells the pairs of a
sample would be found; assign every range to its cells; send its vectors to the groups that those are in; join each
group. Between stages vectors lie in files of a folder that all workers see. What the driver holds is a few bytes per
row (which vector it has), the sample, and what the jobs count.

Which way is taken hangs on how large the values are, and on nothing of the machine.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.embeddings.cosine import FLOPS_PER_S
from curation.dedup.embeddings.cosine_recall import SAMPLED, Recall, fewest_cells
from curation.dedup.embeddings.group_jobs import Wanted, group_jobs
from curation.dedup.embeddings.kmeans import SAMPLE_PER_CELL, KMeans, digest
from curation.dedup.embeddings.spilled_vectors import Piece, SpilledVectors, spill
from curation.dedup.embeddings.vectors_by_cell import centroids_of_sample, pool_cells
from curation.dedup.embeddings.vectors_by_group import Assign, CellsNeeded, Move, Moved, grouped
from curation.dedup.exchange import results
from curation.dedup.join import Values
from curation.dedup.tiles import Partitions
from curation.selection.inputs import raw_halves
from curation.selection.likeness.devices import device, processors
from curation.selection.likeness.likeness import Search, Side
from curation.selection.likeness.partitions import partition_bytes, ranges_of, shares_of
from curation.selection.step import Desk
from curation.storage.captured import captured_vectors

_MOVED_S_PER_NUMBER = 3e-9


def spilled_side(column: pa.ChunkedArray, folder: Path, desk: Desk) -> Side:
    """The distinct vectors of a column in files of a folder, which is made."""
    folder.mkdir()
    ranges = ranges_of(column.nbytes)
    vectors, group_N, named = spill(_shares(column), ranges, folder, desk.find)
    without = len(column) - column.null_count - int((group_N >= 0).sum())
    facts = {"without_direction": without} if without else {}
    return Side(group_N, len(vectors), named, vectors, facts, spilled=True)


@dataclass(frozen=True)
class SpilledSearch:
    """How vectors in files are searched for pairs of `least` or more; `named` is the name of the centroids."""

    least: Fraction
    recall: float
    forest: bool
    desk: Desk
    named: list[Any]

    def of(self, side: Side, other: Side | None) -> Search:
        """What finds the pairs inside one side, or between two: after all stages but the last."""
        vectors: SpilledVectors = side.held
        searched: SpilledVectors = vectors if other is None else other.held
        cells = pool_cells(len(vectors))
        if not len(vectors):
            return Search([], {"recall": 1.0})
        if cells is None:
            first_1D = vectors.rows(0, 1)  # one cell, whatever its centre
            return self._joined(vectors, searched, first_1D, 1, {"recall": 1.0})
        centroids_KD = self._centroids(vectors, cells)
        nearest = self._nearest(vectors, searched, centroids_KD)
        facts = {"cells": len(centroids_KD), "cells_per_vector": nearest, "centroids": digest(centroids_KD)}
        return self._joined(vectors, searched, centroids_KD, nearest, facts)

    def _centroids(self, vectors: SpilledVectors, cells: int) -> np.ndarray:
        kmeans = KMeans(device=device(), threads=processors())
        sample = 0, min(cells * SAMPLE_PER_CELL, len(vectors))
        centroids_KD = captured_vectors(
            self.desk.store, self.named, lambda: centroids_of_sample(vectors.rows(*sample), cells, kmeans)
        )
        assert centroids_KD is not None
        return centroids_KD

    def _nearest(self, vectors: SpilledVectors, searched: SpilledVectors, centroids_KD: np.ndarray) -> int:
        """In how many cells to look for a vector: so that enough pairs of the pool's last vectors are found."""
        number_S = np.arange(len(vectors))[-SAMPLED:]
        sample = centroids_KD, vectors.rows(int(number_S[0]), len(vectors)), number_S
        per_vector_s = _work_s(SAMPLED, vectors.width)
        within, where = searched is vectors, device()
        errands = [CellsNeeded(one, within, self.least, where, per_vector_s * one.rows) for one in searched.ranges]
        needing = np.sum(results(self.desk.find, errands, sample), axis=0)
        return fewest_cells(needing, self.recall, len(centroids_KD))

    def _joined(
        self,
        vectors: SpilledVectors,
        searched: SpilledVectors,
        centroids_KD: np.ndarray,
        nearest: int,
        facts: dict[str, Any],
    ) -> Search:
        """Assign, send, and the jobs that join. Recall is measured on the pool's first vectors."""
        number_S = np.arange(min(len(vectors), SAMPLED)) if "cells" in facts else np.arange(0)
        sample = centroids_KD, vectors.rows(0, len(number_S)), number_S
        alone = centroids_KD, vectors.rows(0, 0), number_S[:0]
        within = searched is vectors
        sizes_LK, found = self._assigned(searched, sample, nearest, within)
        sizes_K = [sizes_LK]
        if not within:
            sizes_K.insert(0, self._assigned(vectors, alone, nearest, within)[0])
        if "cells" in facts:
            facts |= recall_facts(Recall(found.found, found.pairs, len(number_S)))
        of_all = 2 * vectors.width * (len(vectors) + (0 if within else len(searched)))
        most = max(partition_bytes(of_all) // (2 * vectors.width + 4 * nearest + 8), 2)
        first_G = grouped(np.sum(sizes_K, axis=0).tolist(), most)
        moved = [self._moved(one, first_G) for one in ([vectors] if within else [vectors, searched])]
        wanted = Wanted(len(centroids_KD), self.least, self.forest, device())
        products_K = sizes_K[0].astype(float) * sizes_K[-1] / (2 if within else 1)
        jobs = group_jobs(wanted, first_G, moved, most, products_K, vectors.width)
        return Search([(sorted(jobs, key=lambda job: -job.work), ())], facts)

    def _assigned(
        self, vectors: SpilledVectors, sample: Values, nearest: int, within: bool
    ) -> tuple[np.ndarray, Recall]:
        """The sizes of cells as sizes_K, and which pairs of the sample share one."""
        per_vector_s = _work_s(len(sample[0]) + len(sample[1]), vectors.width)
        errands = [
            Assign(one, _cells(one.file), nearest, within, self.least, device(), per_vector_s * one.rows)
            for one in vectors.ranges
        ]
        sizes, recalls = zip(*results(self.desk.find, errands, sample), strict=True)
        found = Recall(sum(one.found for one in recalls), sum(one.pairs for one in recalls), 0)
        return np.sum(sizes, axis=0), found

    def _moved(self, vectors: SpilledVectors, first_G: np.ndarray) -> Partitions:
        per_vector_s = _MOVED_S_PER_NUMBER * vectors.width
        errands = [Move(one, _cells(one.file), Moved.at(one.file), per_vector_s * one.rows) for one in vectors.ranges]
        counts_FG = np.stack(results(self.desk.find, errands, (first_G,)))
        for errand in errands:
            errand.cells.unlink()
        return Partitions(tuple(errand.to for errand in errands), counts_FG)


def recall_facts(recall: Recall) -> dict[str, Any]:
    """What a random sample of vectors, compared with all, says of the search."""
    return {
        "recall": round(recall.estimate, 4),
        "recall_of_pairs": recall.pairs,
        "recall_of_rows": recall.sampled,
    }


def _work_s(compared: int, width: int) -> float:
    return 2 * width * compared / FLOPS_PER_S


def _cells(file: Path) -> Path:
    return file.with_name(f"{file.name}-cells-by-number")


def _shares(column: pa.ChunkedArray) -> list[tuple[Piece, ...]]:
    """The rows of a column in shares, which are not copied."""
    return [tuple(raw_halves(array) for array in arrays) for arrays in shares_of(column)]
