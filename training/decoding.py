"""Squares of stored pictures: decoded by a few threads, or by processes where many are asked for.

A thread needs Python's lock some eight times per picture. Beyond a few threads they wait for each other more than they
decode, and the loop that launches the model's kernels waits with them: beside a training 16 threads on 16 cores gave
1,370 pictures a second, where 8 processes alone give 4,130. Processes write into memory that they share with this one.
Shapes: S pictures of a share, H and W the model's side in pixels, C channels.
"""

import contextlib
import mmap
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np

from schemas.errors import RunError
from schemas.picture_transform import square
from schemas.pixels import DecodeError, decode

MOST_THREADS = 4
_MOST_SHARE = 16  # pictures

Squares = Callable[[Sequence[bytes | None]], list[np.ndarray | None]]
"""uint8 `pixels_HWC` of stored pictures, in order; None where there is none, or it is broken."""


@contextlib.contextmanager
def decoders(workers: int, side_px: int, at_least_px: int | None = None) -> Iterator[Squares]:
    """What decodes pictures to squares of that side, several at once.

    `at_least_px`: of the shorter side, where pictures may be decoded smaller than they are.
    """
    with contextlib.ExitStack() as opened:
        free: SimpleQueue[_Process] = SimpleQueue()
        for _ in range(workers if workers > MOST_THREADS else 0):
            free.put(opened.enter_context(_process(side_px, at_least_px)))
        threads = opened.enter_context(ThreadPoolExecutor(workers, "decode"))
        opened.callback(threads.shutdown, cancel_futures=True)

        def decoded(stored: Sequence[bytes | None]) -> list[np.ndarray | None]:
            if workers <= MOST_THREADS:
                return [_square(one, side_px, at_least_px) for one in stored]
            process = free.get()  # there are as many as threads
            try:
                return process.squares(stored)
            finally:
                free.put(process)

        def squares(stored: Sequence[bytes | None]) -> list[np.ndarray | None]:
            # A task for each picture would cost as much as it does.
            some = min(_MOST_SHARE, max(1, -(-len(stored) // (4 * workers))))
            shares = [stored[start : start + some] for start in range(0, len(stored), some)]
            return [square for share in threads.map(decoded, shares) for square in share]

        yield squares


def _square(stored: bytes | None, side_px: int, at_least_px: int | None) -> np.ndarray | None:
    if stored is None:
        return None
    try:
        return square(decode(stored, at_least_px), side_px)
    except DecodeError:
        return None


class _Process:
    """One that decodes, as its parent sees it: a line to it, and the memory that its squares come in."""

    def __init__(self, line: Connection, shared_SHWC: np.ndarray) -> None:
        self._line, self._shared_SHWC = line, shared_SHWC

    def squares(self, stored: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """Raises RunError where the process has ended."""
        try:
            self._line.send(list(stored))
            there: list[bool] = self._line.recv()
        except (EOFError, OSError) as error:
            raise RunError(
                "a process that decodes pictures has ended, for want of memory or by a fault of a decoder; "
                f"lower `workers`: up to {MOST_THREADS} are threads"
            ) from error
        return [self._shared_SHWC[number].copy() if one else None for number, one in enumerate(there)]


@contextlib.contextmanager
def _process(side_px: int, at_least_px: int | None) -> Iterator[_Process]:
    """A process that ends with this one, however this one ends."""
    context = get_context("spawn")  # a forked one would inherit locks of threads, and a GPU's context
    line, its_line = context.Pipe()
    descriptor = os.memfd_create("pixels")  # /dev/shm is small in containers
    try:
        shape = (_MOST_SHARE, side_px, side_px, 3)
        os.ftruncate(descriptor, int(np.prod(shape)))
        place = f"/proc/{os.getpid()}/fd/{descriptor}"
        made = context.Process(target=_serve, args=(its_line, place, shape, at_least_px), daemon=True)
        made.start()
        its_line.close()  # so that it ends when this process lets go of the other end
        try:
            yield _Process(line, _mapped(descriptor, shape))
        finally:
            line.close()
            made.terminate()
            made.join()
    finally:
        os.close(descriptor)


def _serve(line: Connection, place: str, shape: tuple[int, ...], at_least_px: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    descriptor = os.open(place, os.O_RDWR)
    shared_SHWC = _mapped(descriptor, shape)
    os.close(descriptor)
    with contextlib.suppress(EOFError):
        while True:
            there = []
            for number, stored in enumerate(line.recv()):
                pixels_HWC = _square(stored, shape[1], at_least_px)
                there.append(pixels_HWC is not None)
                if pixels_HWC is not None:
                    shared_SHWC[number] = pixels_HWC
            line.send(there)


def _mapped(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)
