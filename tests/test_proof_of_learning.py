"""What is learnt: colours and shapes by CLIP, held to the gates of five seeds; more from curated pairs than from all.

The model of the first test is the scorer of the second.
"""

from pathlib import Path

import pytest

from benchmarks.compare import METRIC, measured
from benchmarks.proof_of_learning import trained

pytestmark = pytest.mark.usefixtures("one_thread")
Proof = tuple[dict[str, float], Path]
GATES = {"colour": 0.88, "shape": 0.77, "pair": 0.88}  # 0.9 × the least of five seeds


@pytest.fixture(scope="module")
def proof(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """Scores of a CLIP, and its folder."""
    folder = tmp_path_factory.mktemp("proof")
    return trained(folder, "clip", 0, 400, 4000, 1), folder / "out" / "model"


def test_clip_tells_colours_shapes_and_pairs_of_pictures_that_it_never_saw(
    proof: Proof,
) -> None:
    found, _ = proof
    assert found["last loss"] < 0.5 * found["first loss"]
    assert {name: found[name] for name, gate in GATES.items() if found[name] < gate} == {}
    assert found["unseen pair"] > 0.1  # of thirty; it was trained on none of the five that are asked for


def test_the_curated_half_of_the_demos_web_teaches_more_than_all_of_it(proof: Proof, tmp_path: Path) -> None:
    """By `compare` from one seed; with six others the difference of mean accuracy was 0.06 to 0.17."""
    comparison = measured(tmp_path, pairs=1200, samples=128 * 125, seeds=1, threads=1, scorer=proof[1])
    whole, curated = comparison.sets
    assert curated.rows < 0.6 * whole.rows
    (difference,) = comparison.verdict.differences
    assert (difference.first, difference.other, difference.metric) == ("uncurated", "demo", METRIC)
    assert difference.estimate.mean > 0
    assert "one seed gives no interval" in comparison.verdict.sentences[0]
