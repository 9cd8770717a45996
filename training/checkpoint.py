"""One file from which a training goes on as if it had never stopped."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from schemas.errors import InputError, RunError

FILE = "checkpoint.pt"
_NUMBERS = ("step", "position", "skipped", "broken", "first_loss", "last_loss", "norms")


@dataclass
class State:
    """Where a training stands: steps done, rows seen of each set, and what changes with each step."""

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    position: tuple[int, ...] = ()
    skipped: int = 0
    broken: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    norms: list[float] = field(default_factory=list)  # lengths of the last gradients, for the spike guard


def save(state: State, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the checkpoint; a crash at any moment leaves the old one or the new one."""
    fresh = folder / f".{FILE}.new"
    kept = {
        "identity": dict(identity),
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_gpu": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numbers": {name: getattr(state, name) for name in _NUMBERS},
    }
    with open(fresh, "wb") as stream:
        torch.save(kept, stream)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(folder / FILE)


def restore(state: State, folder: Path, identity: Mapping[str, Any]) -> bool:
    """Set the state to that of the folder's checkpoint; False where there is none.

    Raises InputError where another specification or other data made it.
    """
    path = folder / FILE
    if not path.is_file():
        return False
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        made_by = kept["identity"]
    except Exception as error:  # torch raises nearly everything for a damaged file
        raise RunError(f"{path}: cannot be read ({type(error).__name__}: {error}); remove it to begin anew") from error
    if made_by != identity:
        names = sorted(n for n in {*made_by, *identity} if made_by.get(n) != identity.get(n))
        raise InputError(
            f"{path}: was made with another {', '.join(names)}; name another `output`, or remove it to begin anew"
        )
    state.network.load_state_dict(kept["network"])
    state.optimizer.load_state_dict(kept["optimizer"])
    for name in _NUMBERS:
        setattr(state, name, kept["numbers"][name])
    torch.set_rng_state(kept["random"])
    if kept["random_gpu"] and torch.cuda.device_count() == len(kept["random_gpu"]):
        torch.cuda.set_rng_state_all(kept["random_gpu"])
    return True
