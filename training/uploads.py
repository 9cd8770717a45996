"""Batches on the device that computes: the next one is copied there while this one is computed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from training.learner import Step


class _Movable(Step, Protocol):
    def moved(self, move: Callable[[np.ndarray | Tensor], Tensor]) -> Self:
        """The batch with what the model reads moved."""


_Batch = TypeVar("_Batch", bound=_Movable)


@contextlib.contextmanager
def uploaded(batches: Iterator[_Batch], device: torch.device) -> Iterator[Iterator[_Batch]]:
    """The batches with tensors of the device; on a CPU as they are."""
    if device.type == "cpu":
        yield batches
        return
    with ThreadPoolExecutor(1, "upload") as pool:
        yield _one_ahead(batches, device, pool)


def _one_ahead(batches: Iterator[_Batch], device: torch.device, pool: ThreadPoolExecutor) -> Iterator[_Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload() -> tuple[_Batch, list[Tensor], torch.cuda.Event]:
        batch, sent = next(batches), []

        def send(array: np.ndarray | Tensor) -> Tensor:
            tensor = torch.as_tensor(array)
            sent.append((tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True))
            return sent[-1]

        with torch.cuda.stream(stream):
            return batch.moved(send), sent, stream.record_event()

    flight = pool.submit(upload)
    while True:
        started = time.perf_counter()
        batch, sent, there = flight.result()
        batch.stalls.wait_s = time.perf_counter() - started
        flight = pool.submit(upload)
        current = torch.cuda.current_stream(device)
        current.wait_event(there)
        for tensor in sent:
            tensor.record_stream(current)  # or its memory would be given away while it is still read
        yield batch
