"""Our own tower, a tokenizer made from captions and a tiny language model learn to say what pictures show."""

import pytest

from benchmarks.proof_of_captioning import experiment


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return experiment(tmp_path_factory.mktemp("proof"), seed=0, threads=1)


def test_captions_of_pictures_never_seen_name_colour_and_shape(scores: dict[str, float]) -> None:
    assert scores["colour"] >= 0.95
    assert scores["shape"] >= 0.70
    assert scores["exact"] >= 0.50


def test_captions_name_the_colour_of_pairs_that_were_never_trained_on(scores: dict[str, float]) -> None:
    assert scores["unseen colour"] >= 0.95


def test_of_a_blank_picture_the_colour_is_a_guess(scores: dict[str, float]) -> None:
    assert scores["blank colour"] <= 0.30
