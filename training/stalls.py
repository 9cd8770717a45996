"""Where the time of a batch goes: which part of the way from the disk to the model is the slow one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

_NOTICED = 0.05  # of a step's time: a shorter wait is no stall


@dataclass
class Stalls:
    """Seconds of one batch, or of several: what making it waited for, and how long the model then waited for it.

    Shards are read in lumps, so the sum of many steps tells more than one. Batches are made ahead of need, so making
    one may take as long as a step without anybody waiting: `wait_s` alone is time that the model lost.
    """

    read_s: float = 0.0  # rows of shards, from disk or network
    decode_s: float = 0.0  # pictures
    tokenise_s: float = 0.0  # captions
    agree_s: float = 0.0  # what other ranks found out about their rows
    wait_s: float = 0.0  # the model, for this batch

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that is spent inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)

    def __add__(self, other: "Stalls") -> "Stalls":
        both = asdict(self), asdict(other)
        return Stalls(**{name: both[0][name] + both[1][name] for name in both[0]})

    def record(self) -> dict[str, float]:
        """The seconds by name, for a log."""
        return {name: round(seconds, 4) for name, seconds in asdict(self).items()}

    def slowest(self, steps_s: float) -> str:
        """The part that steps of that length together waited for: `model`, `read`, `decode`, `tokenise` or `agree`."""
        if self.wait_s < _NOTICED * steps_s:
            return "model"
        made = {name: seconds for name, seconds in asdict(self).items() if name != "wait_s"}
        return max(made, key=lambda name: made[name]).removesuffix("_s")
