"""What the machinery costs per part: plan, commits and sidecars against downloading and hashing 1,000 pictures.

    python benchmarks/overhead.py

Runs one part in this process under a profiler of wall-clock time, with a web on this machine, and prints how much of
it was spent outside of fetching, decoding, encoding and hashing.
"""

import cProfile
import pstats
import tempfile
import time
from pathlib import Path

from curation.execution.in_process import InProcess
from curation.job import Job
from flows.demo_web.server import DemoServer
from flows.demo_web.web import make_web
from flows.progress import Progress
from schemas.pipeline import CurationSpec

_MACHINERY = ("storage", "ingest.py", "publish.py", "plan.py", "samples.py", "part_rows.py", "fates.py")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="pairmill-overhead-") as name:
        folder = Path(name)
        with DemoServer(folder / "web" / "files") as server:
            web = make_web(folder / "web", server.base_url, pairs=1000)
            steps = [{"download": {"allow_networks": ["127.0.0.0/8"], "timeout_s": 2, "retries": 0}}, "image_hash"]
            source = {"table": str(web.pairs)}
            spec = CurationSpec.model_validate(
                {"name": "o", "store": str(folder / "store"), "source": source, "steps": steps}
            )
            progress = Progress([])
            job = Job.open(spec, progress)
            progress.begin(spec.name, job.plan)
            executor = InProcess(debug=True)
            profile = cProfile.Profile(time.perf_counter)
            started = time.perf_counter()
            profile.enable()
            job.start(lambda: executor)
            while not job.advance():
                job.run.run_stage(executor)
            profile.disable()
            whole = time.perf_counter() - started
    outer = {}
    for (file, _, function), (_, _, _, cumulative, callers) in pstats.Stats(profile).stats.items():
        mine = any(part in file for part in _MACHINERY) and "curation" in file
        if mine and not any(any(part in caller[0] for part in _MACHINERY) for caller in callers):
            outer[f"{Path(file).name}:{function}"] = cumulative
    spent = sum(outer.values())
    print(
        f"one part of 1,000 rows: {whole:.2f} s, of it the machinery {spent:.2f} s = {spent / whole:.1%} (goal < 5 %)"
    )
    for name, seconds in sorted(outer.items(), key=lambda pair: -pair[1])[:8]:
        print(f"  {seconds:7.3f} s  {name}")


if __name__ == "__main__":
    main()
