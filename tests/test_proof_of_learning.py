"""CLIP learns colours, shapes and their pairs: one seed of the proof of learning, held to the gates of five."""

import pytest

from benchmarks.proof_of_learning import experiment

GATES = {"colour": 0.88, "shape": 0.77, "pair": 0.88}  # 0.9 × the least of five seeds


@pytest.mark.usefixtures("one_thread")
def test_clip_tells_colours_shapes_and_pairs_of_pictures_that_it_never_saw() -> None:
    found = experiment("clip", 0, 400, 4000, 1)
    assert found["last loss"] < 0.5 * found["first loss"]
    assert {name: found[name] for name, gate in GATES.items() if found[name] < gate} == {}
    assert found["unseen pair"] > 0.1  # of thirty; it was trained on none of the five that are asked for
