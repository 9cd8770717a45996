"""`pairmill demo --captioner`, small but whole: the curated set teaches a model, which describes what it never saw."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.demo_captioner import share_naming


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """What one run prints as JSON, its progress, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "flows.command_line", "demo", "--folder", str(folder), "--pairs", "300"]
    environment = os.environ | {"PAIRMILL_HOME": str(folder / "home")}
    done = subprocess.run(
        [*command, "--executor", "in-process", "--captioner", "--json"],
        capture_output=True, text=True, timeout=400, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr, folder


def test_the_captioner_describes_pictures_that_it_never_saw(demo: tuple[dict[str, Any], str, Path]) -> None:
    record, said, folder = demo
    assert "trains a vision-language model on the curated set" in said
    found = record["captioner"]
    assert set(found["scores"]) == {"colour", "shape"}
    assert all(0 <= score <= 1 for score in found["scores"].values())
    truth = [
        json.loads(line) for line in (folder / "held_out" / "pictures" / "captions.jsonl").read_text().splitlines()
    ]
    for one, right in zip(found["captions"], truth, strict=False):
        assert (one["colour"], one["shape"]) == (right["colour"], right["shape"])
        assert one["said"]


def test_the_captioner_learnt_from_the_curated_set_alone(demo: tuple[dict[str, Any], str, Path]) -> None:
    record, _, folder = demo
    data = json.loads((folder / "trained" / "captioner" / "stage-1" / "data.json").read_text())
    version = Path(record["curated"]["manifest"]).parent / record["curated"]["version"]
    assert [one["set"] for one in data["taken"]] == [f"{version.parent}@{version.name}"]


def test_the_captioner_loads_in_plain_transformers(demo: tuple[dict[str, Any], str, Path]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    record, _, _ = demo
    model = AutoModelForImageTextToText.from_pretrained(record["captioner"]["model"])
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    tokenizer = AutoProcessor.from_pretrained(record["captioner"]["model"]).tokenizer
    assert len(tokenizer("a red star")["input_ids"]) == 3  # words of the captions are its tokens


def test_a_caption_is_right_where_it_has_the_word() -> None:
    assert share_naming(["a red star", "a reddish cross", "this is a star"], ["red", "red", "star"]) == pytest.approx(
        2 / 3
    )
