"""Locked towers (LiT, arXiv 2111.07991): their weights do not train, and their batch norms keep their statistics."""

import contextlib
import io
import types
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from schemas.errors import InputError
from schemas.towers import Lock, Locked


def lock_towers(network: Any, lock: Lock) -> None:
    """Lock what is asked for; call before the optimizer is made. Raises InputError where a tower has no such groups.

    The projection behind a tower of timm or Hugging Face trains on: the tower itself knows nothing of it.
    """
    for tower, asked in (("image", lock.image), ("text", lock.text)):
        if asked is not None:
            _lock(network, tower, asked)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            held: Any = module.eval()
            held.train = types.MethodType(_stays, held)  # also under `network.train()`


def _lock(network: Any, tower: str, asked: Locked) -> None:
    count = 0 if asked == "all" else asked
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # open_clip prints
            getattr(network, f"lock_{tower}_tower")(count)
    except Exception as error:  # towers differ in what they can
        raise InputError(f"lock: {tower}: {asked}: this tower cannot be locked so ({error}); say `all`") from error


def _stays(self: nn.Module, _mode: bool = True) -> nn.Module:
    return self
