"""`dedup: {cosine}`, `cluster` and `near` in whole runs, over embeddings that a source brings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job

from curation.analytics.query import asked
from curation.prune import prune
from schemas.errors import InputError

D = 8


def pool(seed: int = 0, rows: int = 60) -> np.ndarray:
    """Three directions with noise, as float16 unit vectors; rows 3 and 0 are nearly one vector."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(D)[np.arange(rows) % 3] + 0.2 * rng.normal(size=(rows, D))
    vectors[3] = vectors[0] + 0.001
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def source(folder: Path, vectors: np.ndarray) -> dict[str, Any]:
    lists = pa.array([row.tolist() for row in vectors.astype(np.float32)], pa.list_(pa.float32()))
    captions = [f"picture {n:02d}" for n in range(len(vectors))]
    urls = [f"http://nowhere/{n}" for n in range(len(vectors))]
    pq.write_table(pa.table({"url": urls, "caption": captions, "vector": lists}), folder / "pairs.parquet")
    return {"table": str(folder / "pairs.parquet"), "rows_per_part": 7}


def run(folder: Path, steps: list[Any], vectors: np.ndarray | None = None, name: str = "s", **more: Any) -> Any:
    where = source(folder, pool() if vectors is None else vectors) | more
    spec = {"name": name, "store": str(folder / "store"), "source": where, "steps": steps}
    return run_job(spec | {"shards": {"format": "parquet"}})


def records(folder: Path, text: str, name: str = "s") -> list[dict[str, Any]]:
    with asked(folder / "store", text, name=name) as answer:
        return list(answer.records())


def test_near_vectors_give_way_and_the_manifest_tells_of_the_search(tmp_path: Path) -> None:
    result = run(tmp_path, [{"dedup": {"by": "vector", "cosine": 0.999}}])
    assert result.curated == 59
    told = json.loads(result.manifest.read_text())["decisions"]["steps[0] dedup"]
    assert told["recall"] == 1.0
    assert told["groups_by_size"] == {"1": 58, "2": 1}
    again = run(tmp_path, [{"dedup": {"by": "vector", "cosine": 0.999}}], rows_per_part=100)
    assert again.version == result.version


def test_semdedup_keeps_the_row_that_is_furthest_from_its_centre(tmp_path: Path) -> None:
    steps = [
        {"cluster": {"by": "vector", "k": 3}},
        {"dedup": {"by": "vector", "cosine": 0.999, "survivors": "earlier", "prefer": ["cluster_cosine"]}},
    ]
    run(tmp_path, steps)
    rows = records(tmp_path, "SELECT caption, cluster, cluster_cosine, fate FROM samples ORDER BY caption")
    assert {row["cluster"] for row in rows} == {0, 1, 2}
    vectors, numbers = pool().astype(np.float64), np.array([row["cluster"] for row in rows])
    for cell in range(3):  # the planted directions are the cells
        assert len({n % 3 for n in np.flatnonzero(numbers == cell).tolist()}) == 1
        centre = vectors[numbers == cell].mean(axis=0)
        cosines = vectors[numbers == cell] @ centre / np.linalg.norm(centre)
        found = np.array([row["cluster_cosine"] for row in rows])[numbers == cell]
        assert np.abs(found - cosines).max() < 2e-3
    first, second = rows[0], rows[3]
    kept = min((first, second), key=lambda row: row["cluster_cosine"])
    assert [row["fate"] for row in (first, second)].count("dropped") == 1
    assert kept["fate"] == "curated"


def test_rows_that_share_a_cell_with_a_reference_live_on(tmp_path: Path) -> None:
    np.save(tmp_path / "reference.npy", np.eye(D, dtype=np.float32)[:1])
    step = {"near": {"by": "vector", "reference": str(tmp_path / "reference.npy"), "clusters": 3}}
    result = run(tmp_path, [step])
    kept = records(tmp_path, "SELECT caption FROM curated ORDER BY caption")
    assert [row["caption"] for row in kept] == [f"picture {n:02d}" for n in range(60) if n % 3 == 0]
    assert "no reference embedding lies in its cell of 3" in result.funnel[-1]["reason"]
    marked = step["near"] | {"mark": "like_it"}
    run(tmp_path, [{"near": marked}, {"keep": "not like_it"}], name="marked")
    assert len(records(tmp_path, "SELECT caption FROM curated", "marked")) == 40


def test_centroids_are_captured_and_go_with_the_signals(tmp_path: Path) -> None:
    step = {"cluster": {"by": "vector", "k": 3}}
    first = run(tmp_path, [step])
    captured = list((tmp_path / "store" / "captured").glob("*.json"))
    assert len(captured) == 1
    record = captured[0].read_text()
    again = run(tmp_path, [step, {"keep": "cluster_cosine > 0.8"}])
    assert captured[0].read_text() == record
    assert first.version != again.version
    prune(tmp_path / "store", remove=True)
    assert captured[0].exists()
    prune(tmp_path / "store", remove=True, signals=True)
    assert not captured[0].exists()
    assert run(tmp_path, [step]).version == first.version


def test_another_curated_set_with_embeddings_can_be_compared_with(tmp_path: Path) -> None:
    run(tmp_path, [], pool(rows=10), name="first")
    against = str(tmp_path / "store" / "curated" / "first")
    steps = [{"dedup": {"by": "vector", "cosine": 0.9999, "against": against, "assume_equal": True}}]
    assert run(tmp_path, steps).curated == 50


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"cluster": {"by": "caption", "k": 3}}], "column 'caption' is of type string, and no embedding"),
        ([{"cluster": {"by": "vectr", "k": 3}}], "there is no column 'vectr'"),
        ([{"dedup": {"by": "caption", "cosine": 0.9}}], "and no embedding"),
        ([{"near": {"by": "vector", "reference": "gone.npy", "clusters": 3}}], "gone.npy"),
        ([{"cluster": {"by": "vector", "k": 3}}, {"cluster": {"by": "vector", "k": 4}}], "cluster"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path, steps: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        run(tmp_path, steps)
    assert not (tmp_path / "store").exists()


def test_a_reference_of_another_width_or_without_vectors_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(4, np.float32))
    with pytest.raises(InputError, match="embeddings are rows of numbers"):
        run(tmp_path, [{"near": {"by": "vector", "reference": str(tmp_path / "flat.npy"), "clusters": 3}}])
    pq.write_table(pa.table({"vector": ["text"]}), tmp_path / "text.parquet")
    with pytest.raises(InputError, match="no embedding"):
        run(tmp_path, [{"near": {"by": "vector", "reference": str(tmp_path / "text.parquet"), "clusters": 3}}])
