"""Stages: what learns and what does not, killed and gone on with, on one rank or two, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import run_cases
from safetensors.torch import load_file
from small_training import pairs, write_set
from tiny_vlm import spec_of

from schemas.errors import InputError, RunError
from schemas.generative import GenerativeSpec
from training.generative.build import build
from training.generative.train import train_generative

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("curated") / "shapes", pairs(64))


def asked(data: Path, output: Path, family: str = "llava", **changes: Any) -> GenerativeSpec:
    """Two stages of a few steps: the connector, then that and adapters of the language model."""
    common = {"data": [{"set": str(data), "prompts": ["Describe the image.", "What is in the picture?"]}]}
    first = common | {"train": ["connector"], "lr": 1e-2, "steps": 4, "batch_size": 4, "max_tokens": 256}
    second = first | {"train": ["connector", "lora"], "lora": LORA, "lr": {"connector": 1e-3, "lora": 1e-2}, "steps": 5}
    second |= {"batch_size": 2, "pack": True, "accumulate": 2}
    fields = {"name": "small", "stages": [first, second], "output": str(output), "save_every": 2, "threads": 1}
    return spec_of(family, **fields | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    told: list[str] = []
    result = train_generative(asked(data, folder), tell=told.append)
    assert result.metrics["stage-1"]["steps"] == 4
    assert result.metrics["stage-2"]["steps"] == 5
    assert told[0].startswith("small, stage 1 of 2: trains connector (")
    assert told[1].startswith("small, stage 2 of 2: trains connector (")
    assert "lora (" in told[1]
    return folder


def test_a_stage_changes_the_parts_that_it_names_and_no_other_bit(data: Path, trained: Path) -> None:
    before = {name: p.detach() for name, p in build(asked(data, trained)).model.named_parameters()}
    first, second = (load_file(trained / f"stage-{n}" / "model" / "model.safetensors") for n in (1, 2))
    changed: dict[int, set[str]] = {1: set(), 2: set()}
    for name, saved in first.items():
        plain = name if name in before else f"model.{name}"
        known = before.get(plain)
        if known is not None and not torch.equal(saved, known):
            changed[1].add(name)
        if not torch.equal(saved, second[name]):
            changed[2].add(name)
    assert changed[1]
    assert all("projector" in name for name in changed[1])
    assert any("language_model" in name for name in changed[2])
    assert not any("vision_tower" in name for name in changed[2])


def test_what_was_trained_loads_in_plain_transformers_and_answers(trained: Path) -> None:
    from tiny_vlm import picture

    from training.generative.answer import answer
    from training.generative.build import open_model

    said = answer(open_model(trained / "model"), [picture(1), picture(2)], "Describe the image.", max_new_tokens=4)
    assert len(said) == 2


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Trainings that were killed after the third step of a stage."""
    root = tmp_path_factory.mktemp("killed")
    folders = {1: root / "1", 2: root / "2"}
    cases = []
    for stage, steps in ((1, 3), (2, 4 + 3)):
        spec = asked(data, folders[stage]).model_dump(mode="json")
        cases.append({"do": "train", "ranks": 1, "spec": spec, "kill_at": steps})
    run_cases(root, cases)
    return folders


@pytest.mark.parametrize("stage", [1, 2])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    data: Path, trained: Path, killed: dict[int, Path], stage: int
) -> None:
    steps: list[int] = []
    told: list[str] = []
    train_generative(asked(data, killed[stage]), progress=lambda done, *_: steps.append(done), tell=told.append)
    assert steps == ([3, 4, 1, 2, 3, 4, 5] if stage == 1 else [3, 4, 5])
    assert ("small, stage 1 of 2: is finished" in told) == (stage == 2)
    whole, again = weights(trained), weights(killed[stage])
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_finished_training_is_not_done_again_and_another_one_is_refused(data: Path, trained: Path) -> None:
    steps: list[int] = []
    train_generative(asked(data, trained), progress=lambda done, *_: steps.append(done))
    assert steps == []
    with pytest.raises(InputError, match=r"stage-1: was finished with another seed; name another `output`"):
        train_generative(asked(data, trained, seed=1))


def test_a_stage_goes_on_with_the_version_it_began_with(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "shapes", pairs(40))
    train_generative(asked(folder, tmp_path / "whole"))

    class Enough(Exception):
        pass

    def stop(done: int, *_: object) -> None:
        if done == 3:
            raise Enough

    with pytest.raises(Enough):
        train_generative(asked(folder, tmp_path / "cut"), progress=stop)
    write_set(folder, pairs(20), version="v2")
    train_generative(asked(folder, tmp_path / "cut", stages=asked(folder, tmp_path).model_dump()["stages"][:1]))
    first, again = (load_file(tmp_path / run / "stage-1" / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_broken_pictures_are_counted_or_refused_as_asked(tmp_path: Path) -> None:
    rows = pairs(48)
    rows[5][1]["png"] = b"\x89PNG\r\n\x1a\n broken"
    folder = write_set(tmp_path / "shapes", rows)
    counted = train_generative(asked(folder, tmp_path / "counted", stages=first_stage(folder, steps=14)))
    assert counted.metrics["stage-1"]["left_out_broken"] >= 1
    refused = asked(folder, tmp_path / "refused", stages=first_stage(folder, steps=14), image={"broken": "refuse"})
    with pytest.raises(RunError, match=r"row 0{31}5.*cannot be decoded|row 0{31}5.*broken"):
        train_generative(refused)


def first_stage(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    stage: dict[str, Any] = asked(folder, folder).model_dump(mode="json")["stages"][0]
    return [stage | changes]
