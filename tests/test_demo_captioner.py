"""The demo's captioner, small but whole: a curated set teaches a model, which describes what it never saw."""

import json
from pathlib import Path

import pytest
from conftest import run_job

from curation.job import Result
from flows.commands.demonstrating import told
from flows.demo import PIPELINES, Demo
from flows.demo_captioner import Described, share_naming, teach_captioner
from flows.demo_web.clean import write_held_out, write_trusted
from schemas.generative import GenerativeSpec
from schemas.reading import read_yaml
from schemas.training import TrainingSpec
from training.contrastive import train_contrastive

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 30


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated set of clean pairs, and pictures that are held out, where the demo has them."""
    root = tmp_path_factory.mktemp("demo")
    write_trusted(root / "trusted", pairs=96)
    write_held_out(root / "held_out", pictures=24)
    run_job({"name": "demo", "store": str(root), "source": {"folder": str(root / "trusted")}, "steps": []})
    tower = _text_in(root, "demo_tower").replace("pipelines/", f"{PIPELINES}/")
    (root / "tower.yaml").write_text(tower)
    changes = ["batch_size=16", "samples=32", "warmup_steps=0", "threads=1"]
    train_contrastive(read_yaml(root / "tower.yaml", TrainingSpec, overrides=changes).spec)
    return root


def _text_in(store: Path, name: str) -> str:
    return (PIPELINES / "training" / f"{name}.yaml").read_text().replace("data/demo", str(store))


def spec_in(store: Path, steps: int = STEPS) -> GenerativeSpec:
    """The demo's own, with fewer steps."""
    file = store / "captioner.yaml"
    file.write_text(_text_in(store, "demo_captioner"))
    changes = [f"stages[0].steps={steps}", "stages[0].batch_size=16", "threads=1"]
    return read_yaml(file, GenerativeSpec, overrides=changes).spec


@pytest.fixture(scope="module")
def described(store: Path) -> Described:
    return teach_captioner(spec_in(store), store / "held_out" / "pictures", lambda *_: None)


def test_the_captioner_describes_pictures_that_it_never_saw(store: Path, described: Described) -> None:
    assert set(described.scores) == {"colour", "shape"}
    assert all(0 <= score <= 1 for score in described.scores.values())
    truth = [json.loads(line) for line in (store / "held_out" / "pictures" / "captions.jsonl").read_text().splitlines()]
    for one, right in zip(described.captions, truth, strict=False):
        assert (one["colour"], one["shape"]) == (right["colour"], right["shape"])
    assert any(one["said"] for one in described.captions)


def test_it_learns_from_the_curated_set_and_its_loss_falls(store: Path, described: Described) -> None:
    lines = (store / "trained" / "captioner" / "stage-1" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == STEPS
    assert losses[-1] < 0.75 * losses[0]
    taken = json.loads((store / "trained" / "captioner" / "stage-1" / "data.json").read_text())["taken"]
    assert [one["set"].split("@")[0] for one in taken] == [str(store / "curated" / "demo")]


def test_a_second_time_it_is_found_done_and_another_training_begins_anew(store: Path, described: Described) -> None:
    steps: list[int] = []
    again = teach_captioner(spec_in(store), store / "held_out" / "pictures", lambda done, *_: steps.append(done))
    assert again == described
    assert steps == []
    teach_captioner(spec_in(store, 2), store / "held_out" / "pictures", lambda done, *_: steps.append(done))
    assert steps == [1, 2]


def test_its_tokenizer_knows_the_words_of_the_captions(store: Path, described: Described) -> None:
    from transformers import AutoProcessor

    tokenizer = AutoProcessor.from_pretrained(described.model).tokenizer
    assert len(tokenizer(" red star background")["input_ids"]) == 3


def test_the_demo_tells_captions_beside_the_truth() -> None:
    found = Described(
        Path("m"), [{"said": "a red star", "colour": "red", "shape": "cross"}], {"colour": 1.0, "shape": 0.5}
    )
    run = Result(Path("manifest.json"), "v1", 2, 1, [])
    lines = list(told(Demo(Path("d"), run, run, [], {"curated": {}, "uncurated": {}}, found)))
    assert "captions of pictures never seen, the share that is right: colour 1.000, shape 0.500" in lines
    assert any(line.startswith("  a red star ") and line.endswith("it is a red cross") for line in lines)


def test_a_caption_is_right_where_it_has_the_word() -> None:
    captions = ["a red star", "a reddish cross", "this is a star"]
    assert share_naming(captions, ["red", "red", "star"]) == pytest.approx(2 / 3)
