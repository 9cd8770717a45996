"""The training loop: forward, loss, backward, step; checkpoints and figures on the way. Every rank runs it."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from schemas.course import Course
from schemas.errors import RunError
from training import checkpoint
from training.checkpoint import State
from training.learner import Learner, Made
from training.logs import METRICS, Log
from training.schedule import learning_rate
from training.spike_guard import KEPT, SpikeGuard
from training.stalls import Stalls
from training.stopping import Stop

Progress = Callable[[int, int, float, float], None]
"""Called as progress(step, steps, loss, samples_per_s)."""
Measure = Callable[[], Mapping[str, Any]]
"""Scores of the model as it is now, by name."""

MOST_SKIPPED = 20
_BEHIND = {"cpu": 0, "cuda": 1}  # steps that are launched before one is waited for


def optimizer_for(network: torch.nn.Module, spec: Course) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the temperature (fewer than two dimensions) do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return optimizer_of(groups, spec)


def optimizer_of(groups: Sequence[dict[str, Any]], spec: Course) -> torch.optim.Optimizer:
    """AdamW of these groups; one with a `scale` has that share of the rate."""
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, betas=(0.9, spec.beta2), eps=1e-6, fused=True)
    # They are there from the beginning, so that a checkpoint has somewhere to be read into.
    for parameter in (p for group in groups for p in group["params"]):
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    return optimizer


def run_steps(
    learner: Learner[Made],
    state: State,
    batches: Iterator[Made],
    spec: Course,
    identity: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    measure: Measure | None = None,
    most_per_s: tuple[str, float] | None = None,
) -> None:
    """Train from the state's step to the last one. SIGTERM or Ctrl-C at any rank saves a checkpoint, then stops all.

    `measure` is called every `evaluate_every` steps. `most_per_s` names one of a step's sizes, and how much of it the
    devices could do at most.
    """
    learner.network.train()
    stalls, seconds, began = Stalls(), 0.0, time.perf_counter()
    guard = SpikeGuard(state.norms, spec.grad_clip, learner.device)
    in_a_row = 0
    with ExitStack() as opened:
        stop = opened.enter_context(Stop())
        log = opened.enter_context(Log(spec, state.step)) if learner.ranks.first else None

        def tell(taken: Taken) -> None:
            """Wait for a step, and say what came of it."""
            nonlocal stalls, seconds, began, in_a_row
            figures, norm = taken.noted(state)
            now = time.perf_counter()
            spent, began = now - began, now
            if log is not None:
                stalls, seconds = stalls + taken.stalls, seconds + spent
                waits = {**taken.stalls.record(), "slowest": stalls.slowest(seconds)}
                speeds = {f"{name}_per_s": round(count / spent, 1) for name, count in taken.sizes.items()}
                if most_per_s is not None:
                    counted, most = most_per_s
                    speeds["mfu"] = round(taken.sizes[counted] / spent / most, 4)
                counts = {"skipped_steps": state.skipped, **taken.left_out}
                log.write({**figures, "gradient": norm, "lr": taken.rate, **counts, **speeds, **waits}, taken.step)
            if progress is not None:
                progress(taken.step, spec.steps, figures["loss"], taken.sizes["samples"] / spent)
            in_a_row = in_a_row + 1 if norm is None else 0
            _require_mostly_sound(in_a_row, taken.step, spec)

        flying: deque[Taken] = deque()
        while state.step < spec.steps:
            flying.append(take_step(learner, state, next(batches), spec, learning_rate(state.step, spec), guard))
            if len(flying) > _BEHIND[learner.device.type]:
                tell(flying.popleft())
            stopping = stop.agreed(learner.ranks, learner.device)
            saving = stopping or state.step % spec.save_every == 0 or state.step == spec.steps
            measuring = measure is not None and _is_time_to_measure(state.step, spec)
            while flying and (saving or measuring):
                tell(flying.popleft())
            if saving:
                checkpoint.save(state, spec.folder, identity, spec.keep_checkpoints, learner.ranks)
            if stopping:
                stop.leave()
            if measure is not None and measuring:
                scores = measure()
                learner.network.train()
                if log is not None:
                    log.write(scores, state.step)
                began = time.perf_counter()
        stop.leave()


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


def take_step(learner: Learner[Made], state: State, batch: Made, spec: Course, rate: float, guard: SpikeGuard) -> Taken:
    """One step. One gone astray changes no weight, and is counted; a GPU decides that by itself."""
    state.optimizer.zero_grad(set_to_none=True)
    share = learner.gradients(batch, state.step)
    length = torch.nn.utils.clip_grad_norm_(learner.network.parameters(), spec.grad_clip)
    length = length.full_tensor() if hasattr(length, "full_tensor") else length  # of FSDP2's shares
    # Ranks decide alike, because they decide by the same numbers.
    loss, norm = learner.ranks.averaged(torch.stack([share, length]).double())
    sound = guard.finds_sound(loss, norm)
    state.step, state.position = state.step + 1, batch.position
    counted = Counter(state.left_out)
    counted.update(batch.left_out)
    state.left_out = dict(counted)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)  # of a part that learns more slowly than others
    state.optimizer.found_inf = 1 - sound.float()  # type: ignore[attr-defined]  # what GradScaler tells fused optimizers
    state.optimizer.step()
    learner.settle()
    if state.ema is not None:
        state.ema.update(learner.network)
    told = {"loss": loss, "gradient": norm, "sound": sound, **learner.figures()}
    sent = {name: value.to("cpu", non_blocking=True) for name, value in told.items()}
    there = torch.cuda.current_stream(learner.device).record_event() if learner.device.type == "cuda" else None
    return Taken(state.step, rate, learner.sizes(batch), dict(state.left_out), batch.stalls, sent, there)


def _require_mostly_sound(in_a_row: int, step: int, spec: Course) -> None:
    if in_a_row >= MOST_SKIPPED:
        raise RunError(
            f"training {spec.name}: loss or gradient went astray in {in_a_row} steps in a row, "
            f"up to step {step} (see {spec.folder / METRICS}); lower lr, or raise warmup_steps"
        )


def _is_time_to_measure(step: int, spec: Course) -> bool:
    return spec.evaluate_every is not None and step % spec.evaluate_every == 0 and step < spec.steps
