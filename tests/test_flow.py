"""The main job under Prefect and on Ray, both real: one server for all tests here."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from flows import services
from flows.status_file import running

REPOSITORY = Path(__file__).parents[1]
PICTURES = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder of the tests' own, where Prefect and Ray are up."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRMILL_HOME", str(folder))
        services.up()
        yield folder
        services.down()


@pytest.fixture(scope="module")
def server(home: Path) -> str:
    """The address of the Prefect server."""
    return services.standing()["prefect"].address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures with captions."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"picture {number}")
    return folder


def write_spec(folder: Path, pictures: Path, *, rows: int = 10, more: str = "") -> Path:
    spec = folder / "spec.yaml"
    spec.write_text(
        f"name: small\nstore: {folder}/store\nsource: {{folder: {pictures}, rows_per_part: 8}}\n{more}"
        f"steps: [image_hash, {{top: {{by: phash, rows: {rows}}}}}]\nshards: {{rows: 4}}\n"
    )
    return spec


def environment(home: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
    return inherited | {"PAIRMILL_HOME": str(home), "PREFECT_HOME": str(home / "client")} | more


def start(home: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows.command_line", *arguments],
        env=environment(home, **more),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pairmill(home: Path, *arguments: str, **more: str) -> Any:
    """The JSON object that a run prints last, and what it says on standard error."""
    process = start(home, *arguments, **more)
    out, said = process.communicate(timeout=170)
    assert process.returncode == 0, said
    return json.loads(out.splitlines()[-1]), said


def ask(server: str, what: str, body: dict[str, Any]) -> Any:
    return post(f"{server}/{what}/filter", body)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def shards_of(record: dict[str, Any]) -> list[str]:
    manifest = json.loads(Path(record["manifest"]).read_text())
    return [shard["tar_sha256"] for shard in manifest["shards"]]


def test_a_run_on_ray_is_a_flow_run_with_a_task_per_stage_and_equals_the_run_in_process(
    home: Path, server: str, pictures: Path, tmp_path: Path
) -> None:
    spec = str(write_spec(tmp_path, pictures))
    on_ray, said = pairmill(home, "run", spec, "--json")
    alone, _ = pairmill(home, "run", spec, "--store", f"{tmp_path}/other", "--executor", "in-process", "--json")
    assert "warning" not in said
    assert on_ray["rows"] == {"pool": PICTURES, "curated": 10}
    assert shards_of(on_ray) == shards_of(alone)
    (flow_run,) = ask(server, "flow_runs", {"flow_runs": {"name": {"any_": [f"curate {spec}"]}}})
    assert flow_run["state_type"] == "COMPLETED"
    assert flow_run["parameters"]["spec"] == spec
    tasks = ask(server, "task_runs", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
    assert sorted(task["name"] for task in tasks) == ["shards", "steps[0] image_hash, steps[1] top"]
    (funnel,) = ask(server, "artifacts", {"artifacts": {"key": {"any_": ["funnel-small"]}}})
    assert [row["rows_out"] for row in json.loads(funnel["data"])] == ["24", "24", "10"]


def test_a_prefect_server_that_cannot_be_reached_is_a_warning(home: Path, pictures: Path, tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path, pictures))
    done, said = pairmill(home, "run", spec, "--json", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "cannot be reached; the run goes on without it" in said
    assert done["rows"]["curated"] == 10


def test_a_schedule_is_a_deployment_that_prefect_lists_and_a_worker_runs(
    home: Path, server: str, pictures: Path, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, pictures)
    process = start(home, "schedule", str(spec), "--cron", "0 3 * * *")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"{Path(sys.executable).with_name('prefect')} worker start --pool pairmill" in out
    prefect = [sys.executable, "-m", "prefect"]
    with_server = environment(home, PREFECT_API_URL=server, COLUMNS="200")
    run = {"env": with_server, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    assert "curate/small" in subprocess.run([*prefect, "deployment", "ls"], **run).stdout  # type: ignore[call-overload]
    (deployment,) = ask(server, "deployments", {"deployments": {"name": {"any_": ["small"]}}})
    post(f"{server}/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    worker = [*prefect, "worker", "start", "--pool", "pairmill", "--run-once"]
    done = subprocess.run(worker, **(run | {"timeout": 150}))  # type: ignore[call-overload]
    assert (tmp_path / "store/curated/small/manifest.json").exists(), done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_stops_its_workers_and_goes_on_later(
    home: Path, pictures: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "ops").mkdir()
    begun = tmp_path / "begun"
    (tmp_path / "ops" / "slow.py").write_text(SLOW.replace("BEGUN", str(begun)))
    spec = write_spec(tmp_path, pictures, more=f"operators: [{tmp_path}/ops]\n")
    spec.write_text(spec.read_text().replace("steps: [", "steps: [slow, "))
    process = start(home, "run", str(spec), "--executor", "in-process")
    wait_until(begun.exists)
    children = psutil.Process(process.pid).children(recursive=True)
    (status,) = running(tmp_path / "store")
    assert "slow" in status["label"]
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.splitlines()[-1].startswith("Stopped. What is committed stays; run the same command again")
    assert children
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert not running(tmp_path / "store")


SLOW = '''
import pathlib, time
from curation.operator import Operator, Output
from schemas.columns import CAPTION, Column
import pyarrow as pa

class Slow(Operator):
    """Waits a while."""

    @property
    def reads(self):
        return (CAPTION,)

    @property
    def adds(self):
        return (Column("waited", pa.bool_(), "whether it waited"),)

    def run(self, batch, opened):
        pathlib.Path("BEGUN").touch()
        time.sleep(60)
        return Output({"waited": [True] * len(batch)})
'''


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
