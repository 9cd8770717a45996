"""What one rank finds out about its share of a batch, told to all ranks.

Ranks make their batches in threads of their own, so nothing here is a collective operation: each rank puts its finding
under a key of the store that the process group was started with, and looks until those of the others are there.
"""

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from schemas.errors import RunError

_LOOK_EVERY_S = 0.002
_PATIENCE_S = 600.0


class Closed(Exception):
    """The batches are wanted no more; nobody answers for those that were being made."""


class Agreement:
    """Findings of all ranks, round by round; every rank takes part in the same rounds in the same order."""

    def __init__(self, store: Any, rank: int, ranks: int, patience_s: float = _PATIENCE_S) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        opened = store.add(f"batches-of-rank-{rank}", 1)  # the first, second … time in this process group
        self._store = PrefixStore(f"batches-{opened}", store)
        self._rank, self._ranks, self._patience_s = rank, ranks, patience_s
        self._round = 0
        self._closed = threading.Event()

    def united(self, mine: Mapping[int, str]) -> dict[int, str]:
        """My findings and everybody else's, by place. Raises RunError where a rank does not answer in time."""
        names = [self._name(rank) for rank in range(self._ranks)]
        self._store.set(names[self._rank], json.dumps({str(place): what for place, what in mine.items()}))
        self._await(names)
        found = [json.loads(self._store.get(name)) for name in names]
        if self._round:  # who told something in this round has read what was told in the one before
            self._store.delete_key(self._name(self._rank, self._round - 1))
        self._round += 1
        return {int(place): what for one in found for place, what in one.items()}

    def close(self) -> None:
        """End the wait for others."""
        self._closed.set()

    def _await(self, names: list[str]) -> None:
        start = time.monotonic()
        while not self._store.check(names):
            if self._closed.wait(_LOOK_EVERY_S):
                raise Closed
            if time.monotonic() - start > self._patience_s:
                silent = [str(rank) for rank, name in enumerate(names) if not self._store.check([name])]
                raise RunError(f"rank {', '.join(silent)} made no batch for {self._patience_s:.0f} s; see what it says")

    def _name(self, rank: int, round_: int | None = None) -> str:
        return f"{self._round if round_ is None else round_}/{rank}"


def agreement(rank: int, ranks: int) -> Agreement | None:
    """How this process tells the other ranks; None where there are none, or no process group joins them."""
    if ranks == 1:
        return None
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() != ranks:
        return None
    return Agreement(distributed.distributed_c10d._get_default_store(), rank, ranks)
