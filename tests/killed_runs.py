"""Runs one specification in forked children, each killed at its n-th durable step (0: never).

    python killed_runs.py SPEC.json STORE=POINT...

Prints one JSON line per child. The children are forked from a process that has imported everything and started no
thread. A durable step is a link, a flush or a replacement: between two of them a kill cannot make a difference.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from conftest import run_job
from hamming_pairs import leaders_within

from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.readiness import make_ready

_STEPS = ("link", "fsync", "replace", "unlink")


def main() -> None:
    """Run what the arguments say."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    leaders_within(np.arange(4, dtype=np.uint64), 4, "components")  # compiled once here, not in every child
    make_ready(PictureForm())
    for argument in sys.argv[2:]:
        store, _, point = argument.partition("=")
        status = _forked(spec | {"store": store}, int(point))
        print(json.dumps({"store": store, "point": int(point), "killed": os.WIFSIGNALED(status)}), flush=True)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            sys.exit(f"point {point}: the run failed")


def _forked(spec: dict[str, Any], point: int) -> int:
    child = os.fork()
    if child == 0:
        left = _count_down(point)
        run_job(spec)
        print(json.dumps({"steps": point - left[0]}), flush=True)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _count_down(point: int) -> list[int]:
    """Kill this process at its n-th durable step, half of them before it happens and half after; 0: never."""
    left = [point]

    def counted(original: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and point % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*args, **kwargs)
            finally:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return step

    for name in _STEPS:
        setattr(os, name, counted(getattr(os, name)))
    return left


if __name__ == "__main__":
    main()
