"""Downloading beside img2dataset 1.47.0: the same pictures from one web, one core each, in alternating runs.

    python benchmarks/download.py --corpus FOLDER --peer PYTHON [--urls 3333] [--rounds 2] [--size 256 512] [--ways …]

FOLDER holds pictures and an `index.json` that lists them (`[{"path": …}, …]`); every tenth URL does not exist. PYTHON
is the interpreter of an environment of its own that has img2dataset. nginx serves on the first core, the clients have
the last. What starting costs is taken out by a run over few URLs: figures are those of (many - few) URLs.
"""

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from local_web import served
from PIL import Image
from scipy.ndimage import uniform_filter

FEW = 64
WAYS: dict[str, dict[str, Any]] = {
    "isolated": {},
    "not isolated": {"isolate": False},
    "planes, isolated": {"decode": "planes"},
    "planes, not isolated": {"decode": "planes", "isolate": False},
    "scaled, isolated": {"decode": "scaled"},
}
GOALS = (
    "goals at 256 px, http: isolated 1.8, not isolated 2.1, planes 2.3; https 7 (Python 3.11); 512 px 1.6; memory half"
)


@dataclass
class Measured:
    """One run, less what a run over few URLs takes; `peak_mb` is PSS over the process tree."""

    urls_per_s: float
    cpu_ms: float
    peak_mb: float
    bytes: int
    pictures: dict[str, bytes]


def main() -> None:
    """Measure in turns and print a table."""
    arguments = _arguments()
    if arguments.child:
        return _child(json.loads(arguments.child))
    paths = [entry["path"] for entry in json.loads((arguments.corpus / "index.json").read_text())]
    with tempfile.TemporaryDirectory(prefix="pairmill-download-") as name, served(arguments.corpus) as web:
        for scheme in arguments.scheme:
            sites = [f"{scheme}://{host}:{web.ports[scheme]}" for host in web.hosts]
            urls = [
                f"{sites[i % len(sites)]}/{'gone/' if i % 10 == 9 else ''}{path}?{i}"
                for i, path in zip(range(arguments.urls), _again(paths), strict=False)
            ]
            for size in arguments.size:
                _compare(Path(name), urls, size, scheme, arguments, web.ca_file)
    print(GOALS)


def _compare(folder: Path, urls: list[str], size: int, scheme: str, arguments: argparse.Namespace, ca: Path) -> None:
    runs: dict[str, list[Measured]] = {}
    for _ in range(arguments.rounds):
        for way in ["img2dataset", *arguments.ways]:
            runs.setdefault(way, []).append(_measured(folder, urls, size, way, arguments.peer, ca))
    peer = runs["img2dataset"]
    print(f"\n{scheme}, {size} px, {len(urls):,} URLs, {arguments.rounds} rounds in turn, medians", flush=True)
    print(
        f"{'':22} {'URLs/s':>8} {'ms CPU/URL':>11} {'ratio':>6} {'peak MB':>8} {'MB out':>7}   PSNR med/p5, SSIM med/p5"
    )
    for way, measured in runs.items():
        cpu_ms = statistics.median(run.cpu_ms for run in measured)
        ratio = statistics.median(run.cpu_ms for run in peer) / cpu_ms
        likeness = "" if way == "img2dataset" else _likeness(measured[0].pictures, peer[0].pictures)
        print(
            f"{way:22} {statistics.median(run.urls_per_s for run in measured):>8.1f} {cpu_ms:>11.2f} {ratio:>6.2f} "
            f"{max(run.peak_mb for run in measured):>8.0f} {measured[0].bytes / 1e6:>7.1f}   {likeness}",
            flush=True,
        )


def _measured(folder: Path, urls: list[str], size: int, way: str, peer: Path, ca: Path) -> Measured:
    figures = []
    for chosen in (urls[:FEW], urls):
        here = folder / "run"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        table = here / "urls.parquet"
        pq.write_table(pa.table({"url": chosen, "caption": [f"caption {i}" for i in range(len(chosen))]}), table)
        command = _img2dataset(peer, table, here, size) if way == "img2dataset" else _ours(table, here, size, WAYS[way])
        environment = {
            **os.environ,
            "SSL_CERT_FILE": str(ca),
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "WANDB_MODE": "disabled",
        }
        figures.append(_run(command, environment))
    (few_s, few_cpu_s, _), (many_s, many_cpu_s, peak_mb) = figures
    pictures = dict(_pictures(here))
    count = len(urls) - FEW
    return Measured(
        count / (many_s - few_s),
        (many_cpu_s - few_cpu_s) * 1000 / count,
        peak_mb,
        sum(map(len, pictures.values())),
        pictures,
    )


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Seconds of wall-clock time and of CPU (all children), and the peak PSS of the process tree in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{said[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0]


def _watch(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    while process.poll() is None:
        try:
            tree = psutil.Process(process.pid)
            processes = [tree, *tree.children(recursive=True)]
            peak[0] = max(peak[0], sum(one.memory_full_info().pss for one in processes) / 1e6)
        except psutil.Error:
            pass
        time.sleep(1)


def _pinned() -> list[str]:
    return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[-1])]


def _img2dataset(peer: Path, table: Path, folder: Path, size: int) -> list[str]:
    options = {
        "url_list": table, "input_format": "parquet", "url_col": "url", "caption_col": "caption",
        "output_format": "webdataset", "output_folder": folder / "out", "processes_count": 1, "thread_count": 64,
        "image_size": size, "resize_mode": "keep_ratio", "number_sample_per_shard": 10_000,
        "enable_wandb": False, "timeout": 10, "retries": 0,
    }  # fmt: skip
    script = str(peer.with_name("img2dataset"))
    return [*_pinned(), str(peer), script, *(f"--{name}={value}" for name, value in options.items())]


def _ours(table: Path, folder: Path, size: int, way: dict[str, Any]) -> list[str]:
    download = {"resize": "keep_ratio", "image_size_px": size, "allow_networks": ["127.0.0.0/8"], "retries": 0, **way}
    spec = {
        "name": "measured",
        "store": str(folder / "store"),
        "source": {"table": str(table)},
        "steps": [{"download": download}],
        "shards": {"rows": 10_000},
    }
    return [*_pinned(), sys.executable, __file__, "--child", json.dumps(spec)]


def _child(spec: dict[str, Any]) -> None:
    """Run a specification in this process, from its source to its shards."""
    from curation.execution.in_process import InProcess
    from curation.job import Job
    from flows.progress import Progress
    from schemas.pipeline import CurationSpec

    progress = Progress([])
    job = Job.open(CurationSpec.model_validate(spec), progress)
    progress.begin(spec["name"], job.plan)
    executor = InProcess(debug=True)
    job.start(lambda: executor)
    while not job.advance():
        job.run.run_stage(executor)
    job.finish()
    executor.close()


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(URL, picture) of every tar that a run wrote, img2dataset's or ours."""
    tars = [*folder.glob("out/*.tar"), *folder.glob("store/curated/measured/*/shard-*.tar")]
    for path in tars:
        with tarfile.open(path) as tar:
            found: dict[str, dict[str, bytes]] = {}
            for member in tar:
                stem, _, extension = member.name.partition(".")
                stream = tar.extractfile(member)
                assert stream is not None
                found.setdefault(stem, {})[extension] = stream.read()
        for members in found.values():
            picture = members.get("jpg") or members.get("png") or members.get("webp")
            if picture:
                yield json.loads(members["json"])["url"], picture


def _likeness(ours: dict[str, bytes], theirs: dict[str, bytes]) -> str:
    """Medians and 5th percentiles over the pictures that both have in the same size."""
    psnr, ssim, other = [], [], 0
    for url in sorted(ours.keys() & theirs.keys())[:1500]:
        one, two = (
            np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) for data in (ours[url], theirs[url])
        )
        if one.shape != two.shape:
            other += 1
            continue
        error = float(np.square(one - two).mean())
        psnr.append(99.0 if error == 0 else 10 * np.log10(255**2 / error))
        ssim.append(_ssim(one.mean(2), two.mean(2)))
    told = f"{np.median(psnr):.1f}/{np.percentile(psnr, 5):.1f}, {np.median(ssim):.4f}/{np.percentile(ssim, 5):.4f}"
    only = len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())
    return told + f" ({len(psnr):,} alike in size, {other} not; {only[0]} only here, {only[1]} only there)"


def _decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def _ssim(one_HW: np.ndarray, two_HW: np.ndarray) -> float:
    """Mean structural similarity with a window of 7 (Wang et al., 2004)."""
    mean_1, mean_2 = uniform_filter(one_HW, 7), uniform_filter(two_HW, 7)
    variance_1 = uniform_filter(one_HW**2, 7) - mean_1**2
    variance_2 = uniform_filter(two_HW**2, 7) - mean_2**2
    covariance = uniform_filter(one_HW * two_HW, 7) - mean_1 * mean_2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return float((top / ((mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2))).mean())


def _again(paths: list[str]) -> Iterator[str]:
    while True:
        yield from paths


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--peer", type=Path, help="Python of an environment with img2dataset 1.47.0")
    parser.add_argument("--urls", type=int, default=3333)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, nargs="+", default=[256])
    parser.add_argument("--scheme", nargs="+", default=["http"], choices=["http", "https"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS)[:3], choices=list(WAYS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
