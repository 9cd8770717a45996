"""One module on several ranks: each has all weights (DDP), or its share of them (FSDP2)."""

import contextlib
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from training.ranks import Ranks


def in_parallel(
    module: nn.Module,
    how: Literal["ddp", "fsdp"],
    ranks: Ranks,
    *,
    some_unused: bool = False,
    apart: Sequence[nn.Module] | None = None,
    whole: Collection[nn.Parameter] = (),
) -> nn.Module:
    """The module as all ranks train it; `some_unused`: a batch may not need all weights that learn.

    Of FSDP2: `apart` are the modules whose shares come together each in its turn, by default all blocks; all ranks must
    run each of them equally often, for every turn is an exchange. `whole` are weights that each rank has all of. It
    cannot share out numbers without a dimension: `average_scalars` does for them what it does for the others.
    """
    if ranks.count == 1:
        return module
    if how == "ddp":
        return DistributedDataParallel(module, gradient_as_bucket_view=True, find_unused_parameters=some_unused)
    module.to(memory_format=torch.contiguous_format)  # it cannot share out weights with channels last
    ignored = {p for p in module.parameters() if p.ndim == 0} | set(whole)
    for block in blocks(module) if apart is None else apart:
        fully_shard(block, ignored_params=ignored)
    fully_shard(module, ignored_params=ignored)
    return module


def blocks(module: nn.Module) -> list[nn.Module]:
    """What stands in a module's lists of layers: the outermost ones, because each block costs an exchange."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) > 1:
            found += [block for block in child if any(p.ndim for p in block.parameters())]
        else:
            found += blocks(child)
    return found


def average_scalars(module: nn.Module, ranks: Ranks) -> None:
    """The mean over ranks of the gradients that FSDP2 leaves to us: those of the temperature and the bias."""
    for parameter in module.parameters():
        if parameter.ndim == 0 and parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= ranks.count


def unsynchronised(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Gradients stay on their rank meanwhile, where that saves an exchange."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()
