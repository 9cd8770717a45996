"""Several processes that train one model: who they are, and what they exchange, with its gradients.

`torchrun` and `pairmill train --nproc` set RANK, WORLD_SIZE and LOCAL_RANK. Gloo carries tensors on a CPU, NCCL between
GPUs.

Shapes: R ranks, b pairs of one rank, B = R · b pairs of all, D numbers per embedding.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from training.launch import MEETING_FILE

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.02
_LONGEST_WAIT = timedelta(hours=1)  # while the first rank evaluates; one that dies is noticed by who started it


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes what all have in common."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The mean of each value over the ranks, the same bits on all of them."""
        if self.count == 1:
            return list(values)
        averaged: list[float] = self.averaged(torch.tensor(values, dtype=torch.float64, device=device)).tolist()
        return averaged

    def averaged(self, values: Tensor) -> Tensor:
        """The mean of each value over the ranks, which stays on its device."""
        if self.count == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed / self.count


ALONE = Ranks()


def asked_ranks() -> Ranks:
    """What the environment says that this process is."""
    return Ranks(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the other ranks that the environment speaks of, and leave them at the end; ALONE where there are none."""
    ranks = asked_ranks()
    if ranks.count == 1:
        yield ALONE
        return
    meeting = os.environ.get(MEETING_FILE)
    if meeting:  # started by `training.launch`, with which this one shall end, however that is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    store = _meet(Path(meeting), ranks) if meeting else None
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=_LONGEST_WAIT)
    yield ranks
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def _meet(file: Path, ranks: Ranks) -> TCPStore:
    """A store of the ranks on this machine; the first one holds it, and the file says where."""
    if ranks.first:
        store = TCPStore("127.0.0.1", 0, ranks.count, is_master=True, wait_for_workers=False)
        fresh = file.with_suffix(".new")
        fresh.write_text(str(store.port))
        fresh.replace(file)
        return store
    while not file.exists():  # where the first rank fails before, `training.launch` stops this one
        time.sleep(_LOOK_EVERY_S)
    return TCPStore("127.0.0.1", int(file.read_text()), ranks.count, is_master=False)


def gathered(local_bD: Tensor, ranks: Ranks) -> Tensor:
    """The rows of all ranks in their order (BD); a row's gradient is the sum of what all ranks have for it."""
    return local_bD if ranks.count == 1 else _Gathered.apply(local_bD)


def swapped(parts_Rb: Tensor, ranks: Ranks) -> Tensor:
    """Row r goes to rank r; what comes back are the rows that the ranks have for this one (Rb)."""
    return parts_Rb if ranks.count == 1 else _Swapped.apply(parts_Rb)


def passed_on(block_bD: Tensor) -> Tensor:
    """The block of the rank before this one, whose own goes to the next; its gradient goes the other way."""
    return _PassedOn.apply(block_bD)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, local_bD: Tensor) -> Tensor:
        all_BD = local_bD.new_empty(len(local_bD) * dist.get_world_size(), *local_bD.shape[1:])
        dist.all_gather_into_tensor(all_BD, local_bD.contiguous())
        return all_BD

    @staticmethod
    def backward(_: Any, gradient_BD: Tensor) -> Tensor:  # type: ignore[override]
        mine_bD = gradient_BD.new_empty(len(gradient_BD) // dist.get_world_size(), *gradient_BD.shape[1:])
        dist.reduce_scatter_tensor(mine_bD, gradient_BD.contiguous())
        return mine_bD


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, parts_Rb: Tensor) -> Tensor:
        return _swap(parts_Rb)

    @staticmethod
    def backward(_: Any, gradient_Rb: Tensor) -> Tensor:  # type: ignore[override]
        return _swap(gradient_Rb)


class _PassedOn(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, block_bD: Tensor) -> Tensor:
        return _shift(block_bD, 1)

    @staticmethod
    def backward(_: Any, gradient_bD: Tensor) -> Tensor:  # type: ignore[override]
        return _shift(gradient_bD, -1)


def _swap(parts_Rb: Tensor) -> Tensor:
    received_Rb = torch.empty_like(parts_Rb, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received_Rb, parts_Rb.contiguous())
    return received_Rb


def _shift(block_bD: Tensor, by: int) -> Tensor:
    rank, count = dist.get_rank(), dist.get_world_size()
    received_bD = torch.empty_like(block_bD, memory_format=torch.contiguous_format)
    calls = [
        dist.P2POp(dist.isend, block_bD.contiguous(), (rank + by) % count),
        dist.P2POp(dist.irecv, received_bD, (rank - by) % count),
    ]
    for request in dist.batch_isend_irecv(calls):
        request.wait()
    return received_bD
