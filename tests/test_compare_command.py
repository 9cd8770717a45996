"""`pairmill compare` as a user meets it: two selections of one pool, trained on and judged; others are refused."""

import json
import os
import random
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from small_training import KINDS, MODEL, picture

from flows.command_line import cli
from flows.one_comparison import PRESETS, training_file
from flows.prefect_server import PrefectServer
from schemas.any_training import read_training
from schemas.training import TrainingSpec
from training.compare import require_comparable

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of pictures, two selections of it, and a training that is scored by labelled pictures."""
    root = tmp_path_factory.mktemp("compare")
    (root / "pictures").mkdir()
    labels = ["file,label"]
    for number in range(PICTURES):
        kind = KINDS[number % len(KINDS)]
        picture(*kind, random.Random(number)).save(root / "pictures" / f"{number:02d}.png")
        (root / "pictures" / f"{number:02d}.txt").write_text(f"a {kind[0]} {kind[1]} on {kind[3]}, number {number}")
        labels.append(f"pictures/{number:02d}.png,{kind[0]}")
    (root / "labels.csv").write_text("\n".join(labels) + "\n")
    write_spec(root, "every", "[caption_stats]")
    write_spec(root, "grey", "[{keep: caption like '%grey%'}]")
    (root / "t.yaml").write_text(
        f"name: tiny\ntask: contrastive\nmodel: {MODEL}\nbatch_size: 8\nsamples: 16\nlr: 2e-3\ndevice: cpu\n"
        f"threads: 1\ndata: [{{set: filled/in}}]\n"
        f"evaluate: [{{zeroshot: {{name: colour, table: {root}/labels.csv}}}}]\n"
    )
    return root


def write_spec(root: Path, name: str, steps: str = "[]", **more: str) -> str:
    """A selection of the pool; `more` replaces lines."""
    lines = {
        "name": name,
        "store": f"{root}/store",
        "source": f"{{folder: {root}/pictures}}",
        "steps": steps,
        "shards": "{rows: 20}",
    }
    path = root / f"{more.pop('file', name)}.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (lines | more).items()))
    return str(path)


def pairmill(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def compare(folder: Path, *arguments: Any, sets: str = "every.yaml grey.yaml") -> Result:
    named = [str(folder / one) if one.endswith(".yaml") else one for one in sets.split()]
    return pairmill("compare", *named, "--train", folder / "t.yaml", "--executor", "in-process", *arguments)


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[dict[str, Any], str]:
    """What the command prints as JSON, and what it says while it works."""
    result = compare(folder, "--seeds", 1, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_each_selection_is_materialised_trained_on_and_judged(folder: Path, done: tuple[dict[str, Any], str]) -> None:
    record, said = done
    assert [(one["name"], one["rows"], round(one["repeats"], 3)) for one in record["sets"]] == [
        ("every", 48, 0.333),
        ("grey", 24, 0.667),
    ]
    assert record["sets"][0]["curation_s"] is not None
    assert record["sets"][1]["curation_s"] is None  # `keep` needs no worker
    assert "set 2 of 2: grey, from" in said
    assert "training 2 of 2: grey, seed 0" in said
    assert (folder / "store" / "comparisons" / "tiny" / "grey" / "seed-0" / "model").is_dir()
    assert json.loads((folder / "store" / "comparisons" / "tiny" / "comparison.json").read_text()) == record


def test_sql_shows_the_scores_of_each_set(folder: Path, done: tuple[dict[str, Any], str]) -> None:
    question = "SELECT name, training, value FROM evaluations WHERE metric = 'top1' AND class IS NULL ORDER BY name"
    shown = pairmill("sql", question, "--store", folder / "store", "--name", "grey", "--format", "json")
    assert shown.exit_code == 0, shown.output
    scores = {one["name"]: one["scores"]["colour.top1"][0] for one in done[0]["sets"]}
    assert [(row["name"], row["training"], row["value"]) for row in json.loads(shown.stdout)] == [
        (name, f"tiny-{name}-seed-0", scores[name]) for name in ("every", "grey")
    ]


def test_finished_sets_are_compared_by_name_and_version_without_a_run(
    folder: Path, done: tuple[dict[str, Any], str]
) -> None:
    version = done[0]["sets"][1]["version"]
    where = ("--seeds", 1, "--store", folder / "store", "--output", folder / "named")
    result = compare(folder, *where, sets=f"{folder}/store/curated/every grey@{version[:8]}")
    assert result.exit_code == 0, result.output
    assert f"grey@{version}" in result.stdout
    assert "one seed gives no interval" in result.stdout
    assert "set 1 of 2" not in result.stderr


def test_the_same_command_and_the_same_call_find_everything_done(
    folder: Path, done: tuple[dict[str, Any], str]
) -> None:
    again = compare(folder, "--seeds", 1, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["sets"] == done[0]["sets"]
    assert "training 2 of 2: grey, seed 0 is done" in again.stderr
    assert "step 2 of 2" not in again.stderr
    from flows.compare import compare as called

    sets = [str(folder / "every.yaml"), str(folder / "grey.yaml")]
    path = called(sets, str(folder / "t.yaml"), seeds=1, executor="in-process")
    assert path == str(folder / "store" / "comparisons" / "tiny" / "comparison.json")
    assert json.loads(Path(path).read_text())["sets"] == done[0]["sets"]


def test_sets_of_other_pools_are_refused_with_both_names(folder: Path, done: tuple[dict[str, Any], str]) -> None:
    (folder / "others").mkdir(exist_ok=True)
    picture(*KINDS[0], random.Random(99)).save(folder / "others" / "a.png")
    (folder / "others" / "a.txt").write_text("a red square")
    write_spec(folder, "other", source=f"{{folder: {folder}/others}}")
    refused = compare(folder, sets="every.yaml other.yaml")
    assert refused.exit_code == 2
    assert "every.yaml and " in refused.stderr
    assert "other.yaml select from different pools (another source)" in refused.stderr
    limited = compare(folder, "--limit", 30, "--store", folder / "store", sets="every.yaml grey")
    assert "every.yaml and grey select from different pools (another --limit: 30 and None)" in limited.stderr


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": "every", "file": "twin"}, "are both called 'every'; give one of them another `name`"),
        ({"name": "far", "store": "elsewhere"}, "name one store for all of them with --store"),
        ({"name": "bare", "shards": "{format: parquet}"}, "writes no pictures (shards.format is parquet)"),
    ],
)
def test_specifications_that_cannot_be_compared_are_refused(folder: Path, second: dict[str, str], words: str) -> None:
    path = write_spec(folder, second.pop("name"), **second)
    refused = compare(folder, sets=f"every.yaml {Path(path).name}")
    assert refused.exit_code == 2
    assert words in refused.stderr


def test_one_set_no_store_no_seed_and_another_task_are_refused(folder: Path) -> None:
    assert "name two sets or more" in compare(folder, sets="every.yaml").stderr
    nowhere = compare(folder, "--store", folder / "nowhere", sets="every grey")
    assert "there is no store here" in nowhere.stderr
    assert not (folder / "nowhere").exists()
    assert "Invalid value for '--seeds': 0" in compare(folder, "--seeds", 0).stderr
    both = [str(folder / "every.yaml"), str(folder / "grey.yaml"), "--train"]
    generative = pairmill("compare", *both, PRESETS / "llava_1_5.yaml")
    assert "training llava_1_5 learns from instructions alone; name a curated set" in generative.stderr
    unknown = pairmill("compare", *both, "datacomp-smal")
    assert "did you mean 'datacomp-small'? presets: datacomp-medium, datacomp-small" in unknown.stderr


@pytest.mark.parametrize(
    ("name", "samples", "steps"), [("datacomp-small", 12_800_000, 3125), ("datacomp-medium", 128_000_000, 31_250)]
)
def test_datacomps_scales_are_presets_by_name(name: str, samples: int, steps: int) -> None:
    spec = read_training(training_file(name))
    assert isinstance(spec, TrainingSpec)
    assert (spec.model, spec.batch_size, spec.lr, spec.warmup) == ("ViT-B-32", 4096, 5e-4, 500)
    assert (spec.weight_decay, spec.beta2, spec.loss, spec.schedule) == (0.2, 0.98, "clip", "cosine")
    assert (spec.samples, spec.steps) == (samples, steps)
    assert spec.name == name.replace("-", "_")
    require_comparable(spec, seeds=5, metrics=["imagenet.top1"])


def test_under_prefect_each_set_and_each_training_is_a_task(
    folder: Path, done: tuple[dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRMILL_HOME", str(tmp_path))
    server = PrefectServer()
    try:
        url = server.wait()
        command = [sys.executable, "-m", "flows.command_line", "compare", folder / "every.yaml", "grey", "--seeds", "1"]
        command += ["--train", folder / "t.yaml", "--output", folder / "flow", "--executor", "in-process"]
        environment = os.environ | {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "client")}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=170)
        assert (said.returncode, "warning" in said.stderr) == (0, False), said.stderr
        (flow_run,) = ask(url, "flow_runs")
        assert flow_run["name"] == f"compare by {folder}/t.yaml"
        assert flow_run["state_type"] == "COMPLETED"
        tasks = sorted(task["name"] for task in ask(url, "task_runs"))
        assert tasks == ["materialise every", "train every, seed 0", "train grey, seed 0"]
        (page,) = ask(url, "artifacts")
        assert page["data"] == (folder / "flow" / "comparison.md").read_text()
    finally:
        server.stop()


def ask(server: str, what: str) -> Any:
    request = urllib.request.Request(f"{server}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)
