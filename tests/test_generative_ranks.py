"""Several ranks train a vision-language model as one does: what each batch holds, and whatever is shared out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_ranks import run_cases
from safetensors.torch import load_file
from small_training import losses_in
from tiny_vlm import picture, spec_of

ANSWERS = ("red", "a red square", "a red square at the top left on grey", "a blue disc at the bottom right on black")
WAYS: dict[str, dict[str, Any]] = {"ddp": {"accumulate": 2}, "fsdp": {"accumulate": 2, "parallel": "fsdp"}}


def write_instructions(folder: Path) -> Path:
    """Conversations of unequal lengths; every second one shows no picture."""
    folder.mkdir()
    rows = []
    for number in range(48):
        said = [("human", "What is in the picture?"), ("gpt", ANSWERS[number % 3 + number % 2])]
        row: dict[str, Any] = {"id": number, "conversations": [{"from": who, "value": text} for who, text in said]}
        if number % 2:
            picture(number).save(folder / f"{number}.png")
            row["image"] = f"{number}.png"
            row["conversations"][0]["value"] = "<image>\nDescribe the image."
        rows.append(row)
    (folder / "mix.json").write_text(json.dumps(rows))
    return folder


def asked(data: Path, output: Path, accumulate: int = 1, **changes: Any) -> dict[str, Any]:
    """All weights in padded rows, then connector and adapters in packs."""
    first: dict[str, Any] = {
        "train": ["encoder", "connector", "llm"], "lr": 1e-3, "steps": 3, "batch_size": 4, "accumulate": accumulate,
        "data": [{"instructions": str(data / "mix.json"), "images": str(data)}], "max_tokens": 128,
    }  # fmt: skip
    second = first | {"train": ["connector", "lora"], "lora": {"rank": 2, "alpha": 4}, "steps": 4, "pack": True}
    fields = {"name": "small", "stages": [first, second], "output": str(output), "threads": 1, "save_every": 2}
    return spec_of("llava", **fields | changes).model_dump(mode="json")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all cases of this file left, run by one process that imported everything once."""
    root = tmp_path_factory.mktemp("ranks")
    data = write_instructions(root / "data")
    cases: list[dict[str, Any]] = []

    def train(output: str, ranks: int, changes: dict[str, Any], **case: Any) -> None:
        cases.append({"do": "train", "ranks": ranks, "spec": asked(data, root / output, **changes), **case})

    train("alone", 1, {})
    train("alone in parts", 1, {"accumulate": 4})
    for name, changes in WAYS.items():
        train(name, 2, changes)
    train("killed", 2, WAYS["fsdp"], kill_at=6)  # after three steps of the second stage
    train("killed", 2, WAYS["fsdp"])
    run_cases(root, cases)
    return root


@pytest.mark.parametrize("way", ["alone in parts", *WAYS])
def test_ranks_and_parts_train_to_the_losses_and_weights_of_one(ran: Path, way: str) -> None:
    for stage in ("stage-1", "stage-2"):
        assert losses_in(ran / way / stage) == pytest.approx(losses_in(ran / "alone" / stage), abs=1e-5)
        expected, found = (load_file(ran / one / stage / "model" / "model.safetensors") for one in ("alone", way))
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=lambda said, n=name: f"{n}: {said}")


def test_ranks_that_were_killed_end_with_the_same_bits(ran: Path) -> None:
    file = "model/model.safetensors"
    assert (ran / "killed" / file).read_bytes() == (ran / "fsdp" / file).read_bytes()
    assert losses_in(ran / "killed" / "stage-2") == losses_in(ran / "fsdp" / "stage-2")
