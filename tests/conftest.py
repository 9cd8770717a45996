"""What several tests need: a small web of pictures that counts requests, and jobs run in this process."""

import http.server
import io
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.execution.in_process import InProcess
from curation.job import Job, Result, Wishes
from schemas.pipeline import CurationSpec

LONGEST_FIRST = (  # files: else one worker would be at them when all others have nothing left to do
    "test_proof_of_captioning", "test_proof_of_learning", "test_on_ray", "test_demo", "test_kill", "test_launch",
    "test_compare_command", "test_flow", "test_isolated", "test_partitioned_joins",
)  # fmt: skip
SITE_FILES = ("/robots.txt", "/.well-known/tdmrep.json")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first, the others as they come."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def textured_jpeg(seed: int, width_px: int = 96, height_px: int = 80) -> bytes:
    """A picture of smooth random colours that no other seed resembles."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@dataclass
class SmallWeb:
    """A web on a free port of this machine: bodies by path, and how often each was asked for."""

    base_url: str
    bodies: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    asked_first: Counter[str] = field(default_factory=Counter)  # robots.txt and tdmrep.json, which are no pictures

    def put(self, path: str, body: bytes, status: int = 200) -> str:
        """Serve a body at a path; return its URL."""
        self.bodies[path] = (status, body)
        return f"{self.base_url}{path}"


@pytest.fixture
def web() -> Iterator[SmallWeb]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            counter = served.asked_first if self.path in SITE_FILES else served.asked
            counter[self.path] += 1
            status, body = served.bodies.get(self.path, (404, b"not here"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = SmallWeb(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()


class Silent:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def stage(self, *what: Any) -> None:
        self.told.append(("stage", *what))

    def part(self, *what: Any) -> None:
        self.told.append(("part", *what))

    def decided(self, *what: Any) -> None:
        self.told.append(("decided", *what))

    def shards(self, *what: Any) -> None:
        self.told.append(("shards", *what))


def write_table(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write rows as Parquet and return the path."""
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def run_job(spec: dict[str, Any], wishes: Wishes | None = None, *, debug: bool = True) -> Result:
    """Run a specification to its manifest in this process (or in one child)."""
    job = Job.open(CurationSpec.model_validate(spec), Silent(), wishes)
    executor = InProcess(debug=debug)
    try:
        job.start(lambda: executor)
        while not job.advance():
            job.run.run_stage(executor)
        return job.finish(executor)
    finally:
        executor.close()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: threads that wait for each other make a busy machine crawl."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
