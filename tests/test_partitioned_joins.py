"""Joins of values that outgrow memory, by partition: the same survivors, and no job has more than its share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.dedup.embeddings import vectors_by_cell
from curation.dedup.join import Values, pairs_of
from curation.selection.dedup import Dedup
from curation.selection.likeness import cosine, spilled_cosine
from curation.selection.step import Decision, Desk
from curation.storage.store import Store

D = 16
Sizes = Callable[..., None]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Sets what is too large for memory, how large partitions and shares are, and what one cell may hold."""

    def set_sizes(gathered: int, partition: int = 1 << 30, share: int = 1 << 30, cell: int = 300) -> None:
        monkeypatch.setattr(cosine, "GATHERED_BYTES", gathered)
        monkeypatch.setattr(spilled_cosine, "PARTITION_BYTES", partition)
        monkeypatch.setattr(spilled_cosine, "SHARE_BYTES", share)
        monkeypatch.setattr(vectors_by_cell, "MOST_IN_ONE_CELL", cell)

    return set_sizes


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in clusters of Zipf's sizes, some of them equal, and some with no direction."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, D))
    vectors = centres[np.minimum(random.zipf(1.5, rows), 30) - 1] + 0.4 * random.standard_normal((rows, D))
    vectors_ND = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors_ND[random.integers(0, rows, rows // 8)] = vectors_ND[random.integers(0, rows, rows // 8)]
    vectors_ND[5], vectors_ND[7, 2] = 0, np.nan
    return vectors_ND


def rows_of(vectors_ND: np.ndarray, null: Sequence[int] = (3,)) -> pa.Table:
    """A table as a step sees it, in chunks of several sizes."""
    stored = [None if n in null else vector.tobytes() for n, vector in enumerate(vectors_ND)]
    keys = [f"{n * 2654435761 % 2**32:032x}" for n in range(len(stored))]
    table = pa.table({"key": keys, "by_0": pa.array(stored, pa.binary(2 * D))})
    cuts = [0, 10, 11, len(stored) // 3, len(stored)]
    return pa.concat_tables([table.slice(a, b - a) for a, b in zip(cuts, cuts[1:], strict=False)])


def others_of(vectors_ND: np.ndarray) -> pa.Table:
    count = len(vectors_ND)
    named = {"key": [f"other {n:04d}" for n in range(count)], "file": ["o.parquet"] * count, "row": range(count)}
    return pa.table(named | {"by_0": pa.array(vectors_ND.astype(np.float32).tolist(), pa.list_(pa.float32()))})


def told(decision: Decision) -> dict[str, Any]:
    """All that a decision says."""
    said = {name: getattr(decision, name) for name in ("reason", "duplicate_of", "row_reasons", "facts")}
    return said | {"kept": decision.kept.tolist()}


SIZES = [
    dict(gathered=0),  # one share, one partition
    dict(gathered=0, partition=20_000, share=3_000),
    dict(gathered=0, partition=2_000, share=700),  # tiles, for a cell holds more
    dict(gathered=0, partition=5_000, share=2_000, cell=10**6),  # no cells: all with all, in tiles
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("survivors", ["components", "earlier", "greedy"])
def test_vectors_in_partitions_have_the_survivors_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], survivors: str, tmp_path: Path
) -> None:
    rows = rows_of(clustered(1500))
    step = Dedup(by="v", cosine=0.9, survivors=survivors)
    sized(gathered=1 << 40, cell=sizes.get("cell", 300))
    expected = told(step.decide(rows))
    assert 100 < sum(expected["kept"]) < 1300
    sized(**sizes)
    for desk in (Desk(), Desk(Store.open(tmp_path))):
        assert told(step.decide(rows, (), desk)) == expected


@pytest.mark.parametrize("sizes", SIZES)
def test_of_another_set_vectors_in_partitions_have_the_neighbours_that_they_have_in_memory(
    sized: Sizes, sizes: dict[str, int], tmp_path: Path
) -> None:
    rows, others = rows_of(clustered(900)), [others_of(clustered(700, seed=1)), others_of(clustered(80, seed=2))]
    step = Dedup(by="v", cosine=0.92, against="o")
    sized(gathered=1 << 40, cell=sizes.get("cell", 300))
    expected = told(step.decide(rows, others))
    assert 50 < sum(expected["kept"]) < 880
    sized(**sizes)
    for desk in (Desk(), Desk(Store.open(tmp_path))):
        assert told(step.decide(rows, others, desk)) == expected
