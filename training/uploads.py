"""Batches on the device that computes: the next one is copied there while this one is computed."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.batches import Batch


@contextlib.contextmanager
def uploaded(batches: Iterator[Batch], device: torch.device) -> Iterator[Iterator[Batch]]:
    """The batches with tensors of the device instead of arrays; on a CPU as they are."""
    if device.type == "cpu":
        yield batches
        return
    with ThreadPoolExecutor(1, "upload") as pool:
        yield _one_ahead(batches, device, pool)


def _one_ahead(batches: Iterator[Batch], device: torch.device, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload() -> tuple[Batch, torch.cuda.Event]:
        batch = next(batches)
        with torch.cuda.stream(stream):
            pixels_BCHW, tokens_BT = _moved(batch.pixels_BCHW, device), _moved(batch.tokens_BT, device)
            return replace(batch, pixels_BCHW=pixels_BCHW, tokens_BT=tokens_BT), stream.record_event()

    flight = pool.submit(upload)
    while True:
        started = time.perf_counter()
        batch, there = flight.result()
        batch.stalls.wait_s = time.perf_counter() - started
        flight = pool.submit(upload)
        current = torch.cuda.current_stream(device)
        current.wait_event(there)
        for tensor in (batch.pixels_BCHW, batch.tokens_BT):
            assert isinstance(tensor, Tensor)
            tensor.record_stream(current)  # or its memory would be given away while it is still read
        yield batch


def _moved(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(array)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
