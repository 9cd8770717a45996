"""DataComp's baselines, as their specifications stand in pipelines/, over a small pool laid out as DataComp's."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import run_job

from curation.analytics.query import asked

PIPELINES = Path(__file__).parents[1] / "pipelines" / "curation"
ENGLISH = (
    "a brown dog runs over the green grass",
    "two people walk along the beach at sunset",
    "an old wooden boat lies in the quiet harbour",
)
OTHER = "der alte Hund schläft heute den ganzen Tag im Garten"
ROWS, D = 60, 8


def row(n: int) -> dict[str, Any]:
    """Every fifth caption is German; every seventh picture is small, every eleventh narrow."""
    caption = OTHER if n % 5 == 0 else f"{ENGLISH[n % 3]} in the year {n}"
    width, height = (150 if n % 7 == 0 else 400), (1300 if n % 11 == 0 else 300)
    return {
        "uid": f"{n:032x}",
        "url": f"http://nowhere/{n}.jpg",
        "text": caption,
        "original_width": width,
        "original_height": height,
        "clip_l14_similarity_score": ((n * 37) % ROWS) / ROWS,
        "clip_b32_similarity_score": ((n * 23) % ROWS) / ROWS,
    }


def in_direction(n: int) -> np.ndarray:
    """One of four directions, with a little noise."""
    vector = np.eye(D)[n % 4] + 0.05 * np.random.default_rng(n).normal(size=D)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two files of metadata with npz beside them, and what the specifications want from outside."""
    (tmp_path / "metadata").mkdir()
    for part in range(2):
        numbers = range(part * 30, part * 30 + 30)
        pq.write_table(pa.Table.from_pylist([row(n) for n in numbers]), tmp_path / "metadata" / f"{part:02d}.parquet")
        vectors = np.array([in_direction(n) for n in numbers], np.float16)
        np.savez(tmp_path / "metadata" / f"{part:02d}.npz", l14_img=vectors, l14_txt=vectors[::-1])
    np.save(tmp_path / "imagenet_l14.npy", np.array([in_direction(1000)], np.float16))
    (tmp_path / "imagenet21k_words.txt").write_text("dog\nwooden boat\nharbour\n")
    return tmp_path


def curated(pool: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The numbers of the rows that a specification keeps; only the number of cells is another one."""
    text = (PIPELINES / f"{name}.yaml").read_text().replace("clusters: 100_000", "clusters: 4")
    monkeypatch.chdir(pool)
    run_job(yaml.safe_load(text))
    with asked(pool / "data" / "datacomp", "SELECT uid FROM curated", name=name) as answer:
        return {int(record["uid"], 16) for record in answer.records()}


ENGLISH_ROWS = {n for n in range(ROWS) if n % 5}
LIKE_IMAGENET = {n for n in ENGLISH_ROWS if n % 4 == 0}
BEST_L14 = {n for n in range(ROWS) if (n * 37) % ROWS >= ROWS - 18}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("datacomp_basic", {n for n in ENGLISH_ROWS if n % 7 and n % 11}),
        ("datacomp_clip_fraction", BEST_L14),
        ("datacomp_laion2b", {n for n in ENGLISH_ROWS if ((n * 23) % ROWS) / ROWS >= 0.28}),
        ("datacomp_text", {n for n in ENGLISH_ROWS if n % 3 != 1}),
        ("datacomp_image", LIKE_IMAGENET),
        ("datacomp_image_and_clip", LIKE_IMAGENET & BEST_L14),
    ],
)
def test_a_baseline_keeps_what_its_rule_says(
    pool: Path, name: str, kept: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert curated(pool, name, monkeypatch) == kept
