"""Ranks started together: the one that failed first is named, and all are stopped, however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_training import VIT, pairs, spec_of, weights_in, write_set

from schemas.errors import InputError, RunError
from training.launch import launch

REPOSITORY = Path(__file__).parent.parent
BEGIN = """
import os, signal, sys, time
from schemas.errors import InputError, RunError
from training.launch import noted
rank = int(os.environ["RANK"])
"""
FAILING = (
    BEGIN
    + """
def work():
    if rank == 1:
        {}
    time.sleep({})
    raise RuntimeError("peer is gone")
noted(work)
"""
)


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_rank_that_failed_first_is_told_and_not_those_that_failed_with_it() -> None:
    code = FAILING.format("raise RunError('shard 7 is damaged')", 0.3)
    with pytest.raises(RunError, match=r"^rank 1 of 2: shard 7 is damaged$"):
        launch(2, command(code))


def test_a_rank_that_hangs_is_stopped_soon_after_another_failed() -> None:
    with pytest.raises(InputError, match=r"^rank 1 of 3: no such model$"):
        launch(3, command(FAILING.format("raise InputError('no such model')", 600)))


def test_a_rank_that_is_killed_is_told_with_its_signal() -> None:
    code = FAILING.format("os.kill(os.getpid(), signal.SIGKILL)", 0.3)
    with pytest.raises(RunError, match=r"^rank 1 of 2 was ended by SIGKILL; perhaps the machine had no memory left"):
        launch(2, command(code))


def test_a_rank_that_ends_without_a_note_is_told_with_its_last_words() -> None:
    code = BEGIN + "print('cannot import', file=sys.stderr)\nsys.exit(3 if rank == 1 else 0)"
    with pytest.raises(RunError, match=r"^rank 1 of 2: ended with code 3\ncannot import$"):
        launch(2, command(code))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_waited_for(number: signal.Signals, tmp_path: Path) -> None:
    rank = f"""
import os, signal, sys, time
def save(*_):
    time.sleep(0.5)
    open({str(tmp_path)!r} + "/saved-" + os.environ["RANK"], "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save); signal.signal(signal.SIGINT, save)
open({str(tmp_path)!r} + "/ready-" + os.environ["RANK"], "w").close()
time.sleep(600)
"""
    start = "import signal, sys\nfrom training.launch import launch\nsignal.signal(15, lambda *_: sys.exit(143))\n"
    launcher = subprocess.Popen(command(start + f"launch(2, {command(rank)!r})"), stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("ready-*"))) < 2:
        time.sleep(0.05)
    launcher.send_signal(number)
    assert launcher.wait(timeout=60) != 0
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


def test_two_ranks_train_from_the_command_line_and_one_result_is_printed(tmp_path: Path) -> None:
    data = write_set(tmp_path / "shapes", pairs(64))
    spec = tmp_path / "small.yaml"
    spec.write_text(json.dumps(spec_of(data, tmp_path / "out", model=VIT, samples=32 * 4).model_dump(mode="json")))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_API_URL", None)
    asked = [sys.executable, "-m", "flows.command_line", "train", str(spec), "--nproc", "2", "--json"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["model"] == str(tmp_path / "out" / "model")
    assert printed["metrics"]["steps"] == 4
    assert "small: step 4 of 4, loss" in done.stderr
    refused = subprocess.run(
        [*asked, "--set", "batch_size=33"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170
    )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: rank ")
    assert "batch_size 33 cannot be shared out evenly among 2 ranks" in refused.stderr


def test_two_nodes_of_torchrun_train_what_two_ranks_of_one_machine_do(tmp_path: Path) -> None:
    data = write_set(tmp_path / "shapes", pairs(64))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_API_URL", None)

    def asked(output: str) -> list[str]:
        spec = tmp_path / f"{output}.yaml"
        fields = spec_of(data, tmp_path / output, model=VIT, samples=32 * 4).model_dump(mode="json")
        spec.write_text(json.dumps(fields))
        return ["flows.command_line", "train", str(spec)]

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meeting, f"--node-rank={rank}", "-m", *asked("nodes")],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [node.communicate(timeout=170)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    one = [sys.executable, "-m", *asked("one"), "--nproc", "2"]
    subprocess.run(one, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=170)
    assert weights_in(tmp_path / "nodes") == weights_in(tmp_path / "one")
