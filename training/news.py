"""What is told of the steps of a training: to its log, to whoever watches, and to whoever must stop it."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from schemas.course import Course
from schemas.errors import RunError
from training.checkpoint import State
from training.logs import METRICS, Log
from training.spike_guard import KEPT
from training.stalls import Stalls

Progress = Callable[[int, int, float, float], None]
"""Called as progress(step, steps, loss, samples_per_s)."""

MOST_SKIPPED = 20
STEP_SECONDS = "step_s"


class Taken(NamedTuple):
    """A step that the device may still be at; its numbers are on their way to this side."""

    step: int
    rate: float
    sizes: Mapping[str, int]
    left_out: Mapping[str, int]
    stalls: Stalls
    told: Mapping[str, Tensor]
    there: torch.cuda.Event | None

    def noted(self, state: State) -> tuple[dict[str, float], float | None]:
        """Wait for it, and note it: its figures, and the length of its gradient, None where it changed no weight."""
        if self.there is not None:
            self.there.synchronize()
        figures = {name: float(value) for name, value in self.told.items()}
        loss, norm, sound = (figures.pop(name) for name in ("loss", "gradient", "sound"))
        state.first_loss = loss if state.first_loss is None else state.first_loss
        state.last_loss = loss
        if not sound:
            state.skipped += 1
            return {"loss": loss, **figures}, None
        state.norms = [*state.norms, norm][-KEPT:]
        return {"loss": loss, **figures}, norm


class News:
    """Tells of each step once the device is done with it."""

    def __init__(
        self,
        spec: Course,
        state: State,
        log: Log | None,
        progress: Progress | None,
        most_per_s: tuple[str, float] | None = None,
    ) -> None:
        self._spec, self._state, self._log, self._progress = spec, state, log, progress
        self._most_per_s = most_per_s
        self._stalls, self._seconds, self._began = Stalls(), 0.0, time.perf_counter()
        self._skipped_in_a_row = 0

    def tell(self, taken: Taken) -> None:
        """Wait for a step, and say what came of it. Raises RunError where too many have gone astray."""
        figures, norm = taken.noted(self._state)
        now = time.perf_counter()
        spent_s, self._began = now - self._began, now
        if self._log is not None:
            said = {**figures, "gradient": norm, "lr": taken.rate, "skipped_steps": self._state.skipped}
            self._log.write({**said, **taken.left_out, **self._speeds(taken, spent_s)}, taken.step)
        if self._progress is not None:
            self._progress(taken.step, self._spec.steps, figures["loss"], taken.sizes["samples"] / spent_s)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if norm is None else 0
        _require_mostly_sound(self._skipped_in_a_row, taken.step, self._spec)

    def pause_ends(self) -> None:
        """What was done since the last step is no part of the next one's time."""
        self._began = time.perf_counter()

    def _speeds(self, taken: Taken, spent_s: float) -> dict[str, float | str]:
        self._stalls, self._seconds = self._stalls + taken.stalls, self._seconds + spent_s
        speeds: dict[str, float | str] = {f"{name}_per_s": round(n / spent_s, 1) for name, n in taken.sizes.items()}
        speeds[STEP_SECONDS] = round(spent_s, 6)
        if self._most_per_s is not None:
            counted, most = self._most_per_s
            if counted in taken.sizes:
                speeds["mfu"] = round(taken.sizes[counted] / spent_s / most, 4)
        return speeds | taken.stalls.record() | {"slowest": self._stalls.slowest(self._seconds)}


def _require_mostly_sound(in_a_row: int, step: int, spec: Course) -> None:
    if in_a_row >= MOST_SKIPPED:
        raise RunError(
            f"training {spec.name}: loss or gradient went astray in {in_a_row} steps in a row, "
            f"up to step {step} (see {spec.folder / METRICS}); lower lr, or raise warmup_steps"
        )
