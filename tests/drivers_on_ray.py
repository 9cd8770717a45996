"""Runs specifications on a Ray that is there, for who asks on standard input, a JSON object per line.

    python drivers_on_ray.py RAY_ADDRESS
    {"spec": {…}}                          run here, connected to Ray once for all; answers {"manifest": …} or an error
    {"spec": {…}, "joins": true}           the same, with every join as tasks of the workers, however small
    {"spec": {…}, "killed_at": "part:3"}   run in a forked driver that kills itself; answers {"killed": true}

`part:3` is the third time that the run tells of a finished part; `stage`, `decided` and `shards` are counted too, and
`seconds:1` is that long after a stage began. Drivers are forked before this process is connected and has threads.
"""

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

from conftest import Silent

from flows import ray_cluster

os.environ |= ray_cluster.token_environment()  # Ray reads it when it is imported

import ray

from curation.execution import joins
from curation.execution.needs import WorkerNeeds
from curation.execution.on_ray import OnRay
from curation.job import Job, Result
from schemas.errors import RunError
from schemas.pipeline import CurationSpec


def run_on_ray(spec: dict[str, Any], watcher: Silent) -> Result:
    """Run a specification to its manifest on the Ray that this process is connected to."""
    job = Job.open(CurationSpec.model_validate(spec), watcher)
    executor = OnRay(WorkerNeeds.of(job.plan, job.spec.execution))
    try:
        job.start(lambda: executor)
        while not job.advance():
            job.run.run_stage(executor)
        return job.finish(executor)
    finally:
        executor.close()


class Deadly(Silent):
    """A watcher that kills its process."""

    def __init__(self, event: str, number: int) -> None:
        super().__init__()
        self._event, self._left = event, number

    def _told(self, event: str) -> None:
        if event == self._event:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if event == "stage" and self._event == "seconds":
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self._left)

    def stage(self, *what: Any) -> None:
        self._told("stage")

    def part(self, *what: Any) -> None:
        self._told("part")

    def decided(self, *what: Any) -> None:
        self._told("decided")

    def shards(self, *what: Any) -> None:
        self._told("shards")


def main() -> None:
    """Answer until nobody asks."""
    address = sys.argv[1]
    for line in sys.stdin:
        asked = json.loads(line)
        if "killed_at" in asked:
            answer: dict[str, Any] = {"killed": os.WIFSIGNALED(_forked(address, asked["spec"], asked["killed_at"]))}
        else:
            _connect(address)
            joins.WORTH_WORKERS_S = -1.0 if asked.get("joins") else math.inf
            try:
                answer = {"manifest": str(run_on_ray(asked["spec"], Silent()).manifest)}
            except RunError as error:
                answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def _forked(address: str, spec: dict[str, Any], killed_at: str) -> int:
    child = os.fork()
    if child == 0:
        event, _, number = killed_at.partition(":")
        _connect(address)
        run_on_ray(spec, Deadly(event, int(number)))
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _connect(address: str) -> None:
    if not ray.is_initialized():
        ray_cluster.connect(address, Path(), ours=True)


if __name__ == "__main__":
    main()
