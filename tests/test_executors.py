"""How parts go through executors: bounded, passed on between kinds of workers, and what is left when a run stops."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Silent, run_job
from own_operators import fate_of, opened, own_operator, seen, spec_of

from curation.execution.executor import Executor, WorkerDied, run_each
from curation.execution.in_process import InProcess
from curation.execution.needs import Needs, WorkerNeeds
from curation.job import Job
from schemas.errors import RunError
from schemas.pipeline import CurationSpec, Resources

HERE = Path(__file__).parent
CAPTIONS = [f"caption {n}" for n in range(24)]


class Counting:
    """An executor that counts what is submitted to another."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._kinds: dict[Any, bool] = {}
        self.most: Counter[Any] = Counter()
        self.submitted: list[bool] = []

    def slots(self, actor: bool) -> int:
        return 2 if actor else 1

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> Any:
        handle = self._executor.submit(function, task, actor=actor)
        self._kinds[handle] = actor
        self.submitted.append(actor)
        in_flight = Counter(self._kinds.values())
        for kind, number in [*in_flight.items(), ("all", sum(in_flight.values()))]:
            self.most[kind] = max(self.most[kind], number)
        return handle

    def wait(self, handles: list[Any]) -> list[tuple[Any, Callable[[], Any]]]:
        (handle, result), *_ = self._executor.wait(handles)
        del self._kinds[handle]
        return [(handle, result)]

    def close(self) -> None:
        self._executor.close()


def run_stage(spec: dict[str, Any], executor: Executor) -> Job:
    """A job whose first stage has run."""
    job = Job.open(CurationSpec.model_validate(spec), Silent())
    job.start(lambda: executor)
    assert not job.advance()
    job.run.run_stage(executor)
    return job


def mixed_steps(folder: Path) -> list[Any]:
    """Tasks, then an actor, then tasks again, in one stage."""
    return [own_operator(folder), own_operator(folder, "model", actor=True), own_operator(folder, "after")]


@pytest.mark.parametrize("debug", [True, False])
def test_parts_go_from_tasks_to_actors_and_back_and_few_are_in_flight(tmp_path: Path, debug: bool) -> None:
    executor = Counting(InProcess(debug=debug))
    job = run_stage(spec_of(tmp_path, CAPTIONS, mixed_steps(tmp_path), 1), executor)
    executor.close()
    parts = len(job.run.snapshot.parts)
    assert parts == 24
    assert Counter(executor.submitted) == {False: 2 * parts, True: parts + 1}  # the model is opened first
    assert executor.most[False] <= 3
    assert executor.most[True] <= 6
    assert executor.most["all"] <= 9
    for name in ("touchy", "model", "after"):
        assert sorted(seen(tmp_path, name)) == sorted(CAPTIONS)
        assert len(opened(tmp_path, name)) == 1


def test_one_process_gives_the_same_bytes_with_and_without_a_child(tmp_path: Path) -> None:
    found = []
    for name, debug in (("a", True), ("b", False)):
        spec = spec_of(tmp_path, CAPTIONS, mixed_steps(tmp_path), 5) | {"store": str(tmp_path / name)}
        found.append(run_job(spec, debug=debug).manifest.read_bytes())
    assert found[0] == found[1]


def test_settings_of_a_later_run_in_one_process_are_its_own(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run_job(spec_of(tmp_path / name, CAPTIONS[:3], [own_operator(tmp_path / name)]))
        assert len(opened(tmp_path / name)) == 1


def _kill(task: str, **_: Any) -> str:
    if task == "always" or not Path(task).exists():
        if task != "always":
            Path(task).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_of_the_tasks_that_a_dead_worker_had_only_the_one_it_was_at_is_blamed(tmp_path: Path) -> None:
    executor = InProcess()
    done = tmp_path / "done"
    done.touch()
    handles = [executor.submit(_kill, str(path), actor=False) for path in (done, tmp_path / "kills", done, done)]
    blamed: dict[Any, bool | None] = {}
    while len(blamed) < 4:
        for handle, result in executor.wait([h for h in handles if h not in blamed]):
            try:
                result()
                blamed[handle] = None
            except WorkerDied as death:
                blamed[handle] = death.blamed
    executor.close()
    assert [blamed[handle] for handle in handles] == [None, True, False, False]


def test_a_task_that_loses_its_worker_once_is_run_again_and_one_that_always_does_is_an_error(tmp_path: Path) -> None:
    executor = InProcess()
    try:
        tasks = {"one": str(tmp_path / "1"), "two": str(tmp_path / "2")}
        assert dict(run_each(executor, _kill, iter(tasks.items()))) == tasks
        with pytest.raises(RunError, match="shard 7: killed its worker 2 times"):
            list(run_each(executor, _kill, iter([("shard 7", "always")])))
    finally:
        executor.close()


def test_ctrl_c_in_the_driver_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, ["sleep"], [own_operator(tmp_path)])
    children: list[psutil.Process] = []
    wait = InProcess.wait

    def interrupted(self: InProcess, handles: "list[Future[Any]]") -> Any:
        wait_until((tmp_path / "touchy.seen").exists)
        children.append(psutil.Process(int(opened(tmp_path)[0])))
        signal.raise_signal(signal.SIGINT)
        return wait(self, handles)

    monkeypatch.setattr(InProcess, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(spec, debug=False)
    assert children
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_a_child_does_not_outlive_a_driver_that_is_killed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ["sleep"], [own_operator(tmp_path)])
    code = f"from conftest import run_job\nif __name__ == '__main__':\n    run_job({spec!r}, debug=False)\n"
    (tmp_path / "driver.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    driver = subprocess.Popen([sys.executable, str(tmp_path / "driver.py")], env=environment)
    wait_until((tmp_path / "touchy.seen").exists)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert any(process.pid == int(opened(tmp_path)[0]) for process in family)
    driver.kill()
    driver.wait()
    assert not psutil.wait_procs(family, timeout=10)[1]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_workers_ask_for_the_most_that_operators_of_their_kind_declare_or_are_given(tmp_path: Path) -> None:
    steps = ["caption_stats", "language", own_operator(tmp_path, actor=True)]
    spec = spec_of(tmp_path, CAPTIONS, steps)
    plan = Job.open(CurationSpec.model_validate(spec), Silent()).plan
    assert WorkerNeeds.of(plan, {}) == WorkerNeeds(Needs(1, 0, 0.5), Needs(1, 0, 1), 1)
    given = {"language": Resources(cpus=2, memory_gb=3), "touchy": Resources(gpus=0.5, actors=4)}
    assert WorkerNeeds.of(plan, given) == WorkerNeeds(Needs(2, 0, 3), Needs(1, 0.5, 1), 4)


@pytest.mark.parametrize(
    ("task", "actor", "actors", "nodes", "cpus", "wanted"),
    [
        (1, 1, 1, 1, 2, (1, 1)),
        (1, 1, 1, 1, 1, (0.5, 0.5)),
        (1, 1, 3, 1, 2, (0.5, 0.5)),
        (1, 4, 1, 2, 4, (1, 4)),
        (1, 8, 1, 2, 4, (0.5, 4)),
        (1, 3, 2, 1, 14, (1, 3)),
        (0, 0, 1, 1, 1, (0, 0)),
    ],
)
def test_a_task_finds_room_beside_the_actors_of_its_node(
    task: float, actor: float, actors: int, nodes: int, cpus: float, wanted: tuple[float, float]
) -> None:
    fitted = WorkerNeeds(Needs(task), Needs(actor), actors).fitted(nodes, cpus, 16)
    assert (fitted.task.cpus, fitted.actor.cpus) == wanted


def test_a_run_over_no_rows_of_a_stage_asks_for_no_worker(tmp_path: Path) -> None:
    steps = [{"keep": "caption = 'nothing'"}, own_operator(tmp_path)]
    result = run_job(spec_of(tmp_path, CAPTIONS[:3], steps))
    assert {fate for fate, _, _ in fate_of(result.manifest).values()} == {"dropped"}
    assert not (tmp_path / "touchy.opened").exists()
