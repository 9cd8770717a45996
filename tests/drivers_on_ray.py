"""Runs one specification on a Ray that is there, each time in a forked driver that kills itself at an event.

    python drivers_on_ray.py RAY_ADDRESS SPEC.json STORE=EVENT:N...

EVENT:N is the N-th time that the run tells of a `stage`, a `part`, a decision (`decided`) or a shard (`shards`), or
`seconds:N` after a stage began. Prints one JSON line per driver. The drivers are forked from a process that has
imported everything and started no thread.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from conftest import Silent

from curation.execution.needs import WorkerNeeds
from curation.execution.on_ray import OnRay
from curation.job import Job, Result, Wishes
from flows import ray_cluster
from schemas.pipeline import CurationSpec


def run_on_ray(spec: dict[str, Any], watcher: Any = None, wishes: Wishes | None = None) -> Result:
    """Run a specification to its manifest on the Ray that this process is connected to."""
    job = Job.open(CurationSpec.model_validate(spec), watcher or Silent(), wishes)
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
    """Run what the arguments say."""
    address, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    for argument in sys.argv[3:]:
        store, _, point = argument.partition("=")
        event, _, number = point.partition(":")
        child = os.fork()
        if child == 0:
            ray_cluster.connect(address, Path(store), ours=True)
            run_on_ray(spec | {"store": store}, Deadly(event, int(number)))
            ray.shutdown()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print(json.dumps({"store": store, "point": point, "killed": os.WIFSIGNALED(status)}), flush=True)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            sys.exit(f"{point}: the run failed")


if __name__ == "__main__":
    main()
