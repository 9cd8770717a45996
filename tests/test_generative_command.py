"""`pairmill train` of a generative specification: real processes, one or two ranks, and sentences for what is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from small_training import pairs, write_set
from tiny_vlm import spec_of

from flows.command_line import cli

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_set(folder / "shapes", pairs(24), per_shard=12, holdout=1)
    return folder


def write_spec(folder: Path, name: str, **changes: Any) -> Path:
    first = {"train": ["connector"], "data": [{"set": "shapes"}], "steps": 2, "batch_size": 4, "lr": 1e-3}
    stages = changes.pop("stages", [first, first | {"train": ["connector", "llm"]}])
    fields = {"name": name, "stages": stages, "threads": 1, "output": name, "save_every": 1} | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec_of("llava", **fields).model_dump(mode="json", exclude_defaults=True)))
    return path


def pairmill(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.command_line", *arguments],
        cwd=home,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "PAIRMILL_HOME": str(home / "own")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_training_tells_its_stages_and_steps_and_prints_one_object_last(home: Path) -> None:
    write_spec(home, "alone", evaluate=[{"captions": {"set": "shapes"}}])
    done = pairmill(home, "train", "alone.yaml", "--json")
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert [line.split(" (")[0].split(", loss")[0] for line in told] == [
        "alone, stage 1 of 2: trains connector", "alone: step 1 of 2", "alone: step 2 of 2",
        "alone, stage 2 of 2: trains connector", "alone: step 1 of 2", "alone: step 2 of 2", "evaluates captions",
    ]  # fmt: skip
    [line] = done.stdout.splitlines()
    found = json.loads(line)
    assert found["model"] == "alone/model"
    assert [found["metrics"][stage]["steps"] for stage in ("stage-1", "stage-2")] == [2, 2]
    assert found["metrics"]["captions"]["questions"] == 12
    noted = json.loads((home / "alone" / "training.json").read_text())
    assert noted["spec"]["family"] == "llava"
    assert [Path(one["manifest"]).parent.name for one in noted["data"]] == ["shapes", "shapes"]


def test_two_ranks_train_by_one_command_and_speak_with_one_voice(home: Path) -> None:
    write_spec(home, "both", parallel="fsdp")
    done = pairmill(home, "train", "both.yaml", "--nproc", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stage 2 of 2: trains") == 1
    assert done.stdout.splitlines()[-1] == "model: both/model"
    assert "stage-2 steps: 2" in done.stdout.splitlines()
    lines = [json.loads(line) for line in (home / "both" / "stage-2" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]


STAGE = {"train": ["connector"], "data": [{"set": "shapes"}], "steps": 1, "batch_size": 4, "lr": 1e-3}


@pytest.mark.parametrize(
    ("changes", "ranks", "words"),
    [
        ({"stages": [STAGE, STAGE | {"data": [{"set": "shape"}]}]}, 1, "shape"),
        ({"stages": [STAGE, STAGE | {"batch_size": 3}]}, 2,
         "stages[1].batch_size: 3 cannot be shared evenly by 2 ranks in 1 parts each (accumulate); take a multiple of"),
        ({"evaluate": [{"benchmark": "docvqa", "annotations": "none.json"}]}, 1, "none.json: there is no such file"),
        ({"evaluate": [{"benchmark": "docqa", "annotations": "none.json"}]}, 1, "did you mean 'docvqa'"),
    ],
    ids=["data of the second stage", "an uneven batch", "missing annotations", "an unknown benchmark"],
)  # fmt: skip
def test_what_is_wrong_anywhere_is_said_before_anything_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], ranks: int, words: str
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("PAIRMILL_HOME", str(home / "own"))
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    write_spec(home, "wrong", **changes)
    refused = CliRunner().invoke(cli, ["train", "wrong.yaml"])
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not (home / "wrong").exists()
