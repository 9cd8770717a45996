"""What the machinery costs per part: ingest, plan, commits and sidecars against fetching and hashing its pictures.

    python benchmarks/overhead.py

Runs parts of 1,000 pictures in this process over a web on this machine, with a clock around every seam of the
machinery, and prints its share of the whole: in the first part, which pays what a run pays once, and in a later one.
"""

import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation import job as job_module
from curation import settling
from curation.execution import operator_run, worker
from curation.execution.in_process import InProcess
from curation.run import Run
from curation.storage.pictures import PictureWriter
from flows.demo_web.server import DemoServer
from flows.demo_web.web import make_web
from flows.progress import Progress
from schemas.pipeline import CurationSpec

PARTS, ROWS = 4, 1000
_SEAMS = [
    (job_module.Job, "start"),
    (operator_run.OperatorRun, "commit"),
    (PictureWriter, "add"),
    (worker, "settle"),
    (settling, "settle"),
    (Run, "_decide"),
]

spent: Counter[str] = Counter()
_inside = False


def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its time counted where it is not called by another seam."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        global _inside
        if _inside:
            return function(*args, **kwargs)
        _inside, started = True, time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - started
            _inside = False

    return call


def run(folder: Path, base_url: str, rows: int) -> tuple[float, float]:
    """Seconds of a run to its last fate, and of them those of the machinery."""
    web = make_web(folder / "web", base_url, pairs=PARTS * ROWS)
    steps = [{"download": {"allow_networks": ["127.0.0.0/8"], "timeout_s": 2, "retries": 0}}, "image_hash"]
    source = {"table": str(web.pairs), "rows_per_part": ROWS}
    spec = CurationSpec.model_validate(
        {"name": "o", "store": str(folder / f"store{rows}"), "source": source, "steps": steps}
    )
    progress = Progress([])
    job = job_module.Job.open(spec, progress, job_module.Wishes(limit=rows))
    progress.begin(spec.name, job.plan)
    executor = InProcess(debug=True)
    spent.clear()
    started = time.perf_counter()
    job.start(lambda: executor)
    while not job.advance():
        job.run.run_stage(executor)
    return time.perf_counter() - started, spent.total()


def main() -> None:
    """Measure and print."""
    for owner, name in _SEAMS:
        setattr(owner, name, clocked(name, getattr(owner, name)))
    with tempfile.TemporaryDirectory(prefix="pairmill-overhead-") as name:
        folder = Path(name)
        with DemoServer(folder / "web" / "files") as server:
            run(folder, server.base_url, 10)  # imports and compiled code
            one, one_machinery = run(folder, server.base_url, ROWS)
            many, many_machinery = run(folder, server.base_url, PARTS * ROWS)
    later, later_machinery = (many - one) / (PARTS - 1), (many_machinery - one_machinery) / (PARTS - 1)
    print(f"the only part of a run: {one:.2f} s, machinery {one_machinery:.3f} s = {one_machinery / one:.1%}")
    print(f"a further part:         {later:.2f} s, machinery {later_machinery:.3f} s = {later_machinery / later:.1%}")
    print("goal: < 5 %")
    for name, seconds in spent.most_common():
        print(f"  {seconds / PARTS:7.3f} s per part  {name}")


if __name__ == "__main__":
    main()
