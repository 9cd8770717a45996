"""Decoders: threads and processes give the same squares, and processes end with the one that began them."""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from PIL import Image

from schemas.errors import RunError
from training.decoding import MOST_THREADS, decoders

SIDE_PX = 24
PARENT = """
import sys, time
from training.decoding import decoders
if __name__ == "__main__":
    with decoders(5, 24) as squares:
        assert squares([None]) == [None]
        print("ready", flush=True)
        time.sleep(60)
"""


def _jpeg(seed: int) -> bytes:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (30 + seed % 9, 40, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stream, "JPEG")
    return stream.getvalue()


def test_processes_give_the_squares_that_threads_give_in_order() -> None:
    stored = [_jpeg(seed) for seed in range(130)]  # more than the places of all shares together
    stored[7], stored[100] = b"\xff\xd8\xff broken", b""
    given = [*stored[:50], None, *stored[50:]]
    with decoders(2, SIDE_PX) as threads, decoders(MOST_THREADS + 1, SIDE_PX) as processes:
        ours, theirs = processes(given), threads(given)
        again = processes(given[:9])
    assert [one is None for one in ours] == [one is None for one in theirs]
    assert sum(one is None for one in ours) == 3
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True) if one is not None)
    assert all(np.array_equal(one, other) for one, other in zip(again, ours[:9], strict=True) if one is not None)


def test_processes_end_when_their_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_process_that_is_killed_is_told_in_a_sentence() -> None:
    with decoders(MOST_THREADS + 1, SIDE_PX) as squares:
        squares([_jpeg(1)])
        for child in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        with pytest.raises(RunError, match=r"has ended.*lower `workers`"):
            squares([_jpeg(2)])
