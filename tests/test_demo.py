"""The demo, small but whole: a web on this machine, Ray and Prefect, curation, training, and the truth about it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.verify import verify

PAIRS = 480


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[dict, Path, str]:
    """What one run of the demo prints as JSON, its folder, and its progress."""
    folder = tmp_path_factory.mktemp("demo")
    record, said = run_in(folder)
    return record, folder, said


def run_in(folder: Path) -> tuple[dict, str]:
    """What a run of the demo in a folder prints as JSON, and its progress."""
    command = [sys.executable, "-m", "flows.command_line", "demo", "--folder", str(folder)]
    environment = os.environ | {"PAIRMILL_HOME": str(folder / "home")}
    command += ["--pairs", str(PAIRS), "--captioner", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_every_step_takes_out_what_was_planted_for_it(demo):
    record, _, _ = demo
    planted = {step["step"]: step for step in record["truth"]}
    for step in ("worded", "english", "steps[4] download", "big_enough", "exact", "near"):
        found = planted[step]
        assert found["taken_out"] > 0
        assert found["rightly"] >= 0.95 * found["taken_out"], step
        assert found["rightly"] >= 0.95 * found["planted"], step


def test_the_funnel_sums_to_the_pool_and_the_set_verifies(demo):
    record, _, _ = demo
    curated = record["curated"]
    funnel = curated["funnel"]
    dropped = sum(step["rows_in"] - step["rows_out"] for step in funnel[1:])
    at_source = curated["rows"]["pool"] - funnel[0]["rows_out"]
    assert curated["rows"]["pool"] == curated["rows"]["curated"] + dropped + at_source
    report = verify(curated["manifest"])
    assert report.ok, report.text()


def test_both_models_are_trained_on_equal_compute_and_measured(demo):
    record, folder, said = demo
    assert set(record["scores"]) == {"curated", "uncurated"}
    for scores in record["scores"].values():
        assert set(scores) == {"colour", "shape", "pair"}
        assert all(0 <= score <= 1 for score in scores.values())
    steps = [
        len((folder / "trained" / name / "metrics.jsonl").read_text().splitlines()) for name in ("curated", "uncurated")
    ]
    assert steps[0] == steps[1] > 0
    assert "trains a CLIP on the curated set" in said


def test_the_trained_model_is_one_that_clip_embed_took(demo):
    record, folder, _ = demo
    assert (folder / "trained" / "scorer" / "model" / "open_clip_config.json").is_file()
    kinds = [step["kind"] for step in record["curated"]["funnel"]]
    assert "clip_embed" in kinds
    assert "clip_score" in kinds


def test_a_captioner_learns_from_the_curated_set_and_describes_pictures_held_out(demo):
    record, folder, said = demo
    captioner = record["captioner"]
    assert Path(captioner["model"]) == folder / "trained" / "captioner" / "model"
    assert (folder / "trained" / "captioner" / "model" / "config.json").is_file()
    assert captioner["scores"].keys() == {"colour", "shape"}
    assert any(one["said"] for one in captioner["captions"])
    assert "trains a vision-language model on the curated set" in said


def test_a_second_demo_in_the_same_folder_finds_everything_done(demo):
    record, folder, said = demo
    again, said_again = run_in(folder)
    assert again | {"seconds": 0} == record | {"seconds": 0}
    assert "writes shards" in said
    assert "writes shards" not in said_again
    assert "INFO" not in said
