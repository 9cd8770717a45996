"""Sets compared by what a vision-language model learns of them: where each is put, and what is not put beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_training import pairs, write_set
from tiny_vlm import picture, spec_of

from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from training.compare import Entrant, compare, require_comparable
from training.comparison.compared import Comparison
from training.comparison.terms import training_on
from training.generative.train import train_generative

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("right", "wrong")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets, conversations beside them, and pictures of two classes."""
    root = tmp_path_factory.mktemp("compare")
    write_set(root / "right", pairs(32), per_shard=8, holdout=1)
    write_set(root / "wrong", pairs(24, shuffled=True), per_shard=8, holdout=1)
    for name in ("disc", "square"):
        (root / "classes" / name).mkdir(parents=True)
        picture(len(name)).save(root / "classes" / name / "1.png")
    said = [{"from": "human", "value": "What is in the picture?"}, {"from": "gpt", "value": "a red square"}]
    (root / "mix.json").write_text(json.dumps([{"id": n, "conversations": said} for n in range(8)]))
    return root


def asked(folder: Path, **changes: Any) -> GenerativeSpec:
    """A stage of captions, then one of conversations with captions among them."""
    own, mix = {"set": str(folder / "right")}, {"instructions": str(folder / "mix.json"), "weight": 3}
    first = {"train": ["connector"], "data": [own], "steps": 2, "batch_size": 4, "lr": 1e-3}
    second = first | {"train": ["connector", "llm"], "data": [own, mix], "steps": 4}
    evaluate = [
        {"captions": {"set": str(folder / "right"), "name": "held_out"}},
        {"zeroshot": {"folder": str(folder / "classes")}},
    ]
    fields = {"name": "small", "stages": [first, second], "output": str(folder / "unused"), "evaluate": evaluate}
    return spec_of("llava", **fields | {"threads": 1} | changes)


def compared(folder: Path, spec: GenerativeSpec, **more: Any) -> Comparison:
    entrants = [Entrant(name, folder / name / "v1.json") for name in NAMES]
    return compare(entrants, spec, 1, folder / "out", **more)


@pytest.fixture(scope="module")
def done(folder: Path) -> Comparison:
    return compared(folder, asked(folder), metrics=["held_out.CIDEr"])


def model_of(stage: Path) -> bytes:
    return (stage / "model" / "model.safetensors").read_bytes()


def test_each_training_is_an_ordinary_one_with_the_set_in_every_stage(folder: Path, done: Comparison) -> None:
    spec = training_on(asked(folder), "wrong", folder / "wrong" / "v1.json", 0, folder / "alone")
    assert isinstance(spec, GenerativeSpec)
    result = train_generative(spec)
    for stage in ("stage-1", "stage-2"):
        assert model_of(folder / "out/wrong/seed-0" / stage) == model_of(spec.folder / stage)
    assert done.sets[1].scores["held_out.CIDEr"] == (result.metrics["held_out"]["CIDEr"],)
    assert model_of(folder / "out/right/seed-0/stage-1") != model_of(spec.folder / "stage-1")


def test_scores_are_those_of_the_evaluations_and_samples_those_of_the_set(done: Comparison) -> None:
    kinds = {"held_out": ("CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L")}
    kinds["zeroshot"] = ("top1", "mean_per_class_recall")
    assert set(done.sets[0].scores) == {f"{label}.{metric}" for label, metrics in kinds.items() for metric in metrics}
    assert (done.steps, done.samples) == (2 + 4, 2 * 4 + 4 * 4 // 4)  # of the second stage's samples a quarter
    assert [(one.name, one.rows) for one in done.sets] == [("right", 24), ("wrong", 16)]
    assert all(seconds > 0 for one in done.sets for seconds in one.training_s)


def test_what_is_done_is_not_trained_again_and_other_terms_are_refused(folder: Path, done: Comparison) -> None:
    again = compared(folder, asked(folder), metrics=["held_out.CIDEr"], progress=lambda name: pytest.fail(name))
    assert again.record() == done.record()
    (folder / "mix.json").write_text((folder / "mix.json").read_text().replace("red", "blue"))
    with pytest.raises(InputError, match=r"was trained with another files .* is not compared"):
        compared(folder, asked(folder))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"data": [{"instructions": "mix.json"}]}, "learns from instructions alone; name a curated set"),
        ({"data": [{"set": "a"}, {"set": "b"}]}, r"stages\[0\] mixes 2 curated sets, and each set is compared alone"),
        ({"pack": True}, r"stages\[0\] packs captions: of short ones more are seen than of long ones"),
    ],
)
def test_trainings_that_cannot_compare_sets_are_refused(folder: Path, stage: dict[str, Any], words: str) -> None:
    spec = asked(folder)
    first = spec.model_dump(mode="json")["stages"][0] | stage
    with pytest.raises(InputError, match=words):
        require_comparable(asked(folder, stages=[first]), seeds=1)


def test_metrics_are_named_by_the_evaluations_of_the_training(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--metric colour.top1: write evaluation.metric, as in held_out.top1"):
        require_comparable(asked(folder), seeds=1, metrics=["colour.top1"])
    with pytest.raises(InputError, match="names nothing in `evaluate`"):
        require_comparable(asked(folder, evaluate=[]), seeds=1)
