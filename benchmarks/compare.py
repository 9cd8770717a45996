"""Curated against uncurated on the demo's web, by `pairmill compare`: does the paired difference exclude zero?

    python benchmarks/compare.py [--pairs 3000] [--samples 30720] [--seeds 5] [--threads 2] [--folder FOLDER]

The demo's own specifications, moved into the folder: the scorer is trained on trusted pairs as the demo trains it, then
the whole web and the demo's selection of it are compared. Goal: over 5 seeds the interval of (curated - uncurated)
excludes zero by average.top1. In a folder that is named, a second call goes on where the first one was stopped.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from flows.commands.comparing import told
from flows.commands.teaching import progress_lines
from flows.compared_sets import SetsAsked
from flows.demo import PIPELINES, web_server, write_evaluation
from flows.demo_web.clean import write_trusted
from flows.demo_web.web import make_web
from flows.environment import quiet_environment
from flows.one_comparison import ComparisonAsked, Teller, run_comparison
from flows.one_run import Request, run
from schemas.any_training import read_training
from training.comparison.compared import Comparison
from training.train import train

METRIC = "average.top1"
_SEED = 0
_PICTURES = 900  # held out; of 300 a score near one half has a standard error of 0.03 by itself


def main() -> None:
    """Compare, print the tables and the verdict, and whether the goal is reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=30_720)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    quiet_environment()
    began, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).absolute()
        comparison = measured(folder, asked.pairs, asked.samples, asked.seeds, asked.threads)
    for line in told(comparison):
        print(line)
    print(f"\n{time.perf_counter() - began:.0f} s in all, {time.process_time() - busy:.0f} s of CPU in this process")
    (one,) = comparison.verdict.differences
    low = one.estimate.low
    reached = "reaches" if low is not None and low > 0 else "misses"
    print(f"{METRIC}, {one.other} - {one.first}: {one.estimate.mean:+.4f}, from {low}: {reached} the goal")


def measured(
    folder: Path, pairs: int, samples: int, seeds: int, threads: int, scorer: Path | None = None
) -> Comparison:
    """Make the web, teach the scorer unless there is one, and compare the demo's two selections."""
    specs = {name: moved(f"curation/{name}.yaml", folder) for name in ("demo_trusted", "demo", "demo_uncurated")}
    trainings = {name: moved(f"training/{name}.yaml", folder) for name in ("demo_scorer", "demo_curated")}
    changes = (f"threads={threads}", "device=cpu")
    with web_server(folder / "web", port=0) as server:
        server.behaviours = make_web(folder / "web", server.base_url, pairs=pairs, seed=_SEED).behaviours
        write_evaluation(folder / "held_out", pictures=_PICTURES, seed=_SEED)
        if scorer is None:
            write_trusted(folder / "trusted", pairs=max(256, pairs // 3), seed=_SEED)
            run(Request(specs["demo_trusted"], executor="in-process"))
            train(read_training(trainings["demo_scorer"], changes), progress=progress_lines("demo_scorer"))
        else:
            shutil.copytree(scorer, folder / "trained" / "scorer" / "model")
        sets = SetsAsked((specs["demo_uncurated"], specs["demo"]), executor="in-process")
        overrides = (*changes, f"samples={samples}", "name=demo")
        wanted = ComparisonAsked(sets, trainings["demo_curated"], seeds, overrides, (METRIC,))
        return run_comparison(wanted, Teller(lambda said: print(said, flush=True), progress_lines))


def moved(name: str, folder: Path) -> str:
    """A specification of the demo, with its paths in the folder."""
    text = (PIPELINES / name).read_text()
    text = text.replace("data/demo", str(folder)).replace(" pipelines/", f" {PIPELINES}/")
    path = folder / "specs" / Path(name).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


if __name__ == "__main__":
    main()
