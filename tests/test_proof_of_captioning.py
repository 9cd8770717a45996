"""Our own tower, a tokenizer made from captions and a tiny language model learn to say what pictures show."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.proof_of_captioning import NEVER_SEEN, experiment, frozen_parts_unchanged


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder of a training, and what its captions name."""
    folder = tmp_path_factory.mktemp("proof")
    return folder, experiment(folder, seed=0, threads=1)


def test_captions_name_colour_and_shape_of_pairs_that_were_never_trained_on(trained) -> None:
    _, scores = trained
    assert scores["colour"] >= 0.95
    assert scores["shape"] >= 0.70


def test_captions_name_colour_and_shape_of_other_pictures_never_seen(trained) -> None:
    _, scores = trained
    assert scores["seen colour"] >= 0.95
    assert scores["seen shape"] >= 0.70


def test_of_a_blank_picture_the_colour_is_a_guess(trained) -> None:
    _, scores = trained
    assert scores["blank colour"] <= 0.30


def test_the_connector_learns_alone_and_leaves_the_other_parts_bit_by_bit(trained) -> None:
    folder, _ = trained
    lines = (folder / "captioner" / "stage-2" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert frozen_parts_unchanged(folder)


def test_the_pairs_that_are_asked_for_are_in_no_text_and_no_picture_of_the_training(trained) -> None:
    folder, _ = trained
    texts = (folder / "texts.json").read_text()
    plain = b"".join((folder / name / "v1" / "shard-000000.tar").read_bytes() for name in ("others", "shapes"))
    for colour, shape in NEVER_SEEN:
        assert f"{colour} {shape}" not in texts
        assert f"{colour} {shape}".encode() not in plain
        assert shape in texts
