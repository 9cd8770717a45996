"""The training loop: forward, loss, backward, step; checkpoints and figures on the way. Every rank runs it."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from schemas.course import Course
from training import checkpoint
from training.checkpoint import State
from training.learner import Learner, Made
from training.logs import Log
from training.news import News, Progress, Taken
from training.schedule import learning_rate
from training.spike_guard import SpikeGuard
from training.stopping import Stop

Measure = Callable[[], Mapping[str, Any]]
"""Scores of the model as it is now, by name."""

_BEHIND = {"cpu": 0, "cuda": 1}  # steps that are launched before one is waited for


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
    guard = SpikeGuard(state.norms, spec.grad_clip, learner.device)
    with ExitStack() as opened:
        stop = opened.enter_context(Stop())
        log = opened.enter_context(Log(spec, state.step)) if learner.ranks.first else None
        news = News(spec, state, log, progress, most_per_s)
        flying: deque[Taken] = deque()
        while state.step < spec.steps:
            flying.append(take_step(learner, state, next(batches), spec, learning_rate(state.step, spec), guard))
            if len(flying) > _BEHIND[learner.device.type]:
                news.tell(flying.popleft())
            stopping = stop.agreed(learner.ranks, learner.device)
            saving = stopping or state.step % spec.save_every == 0 or state.step == spec.steps
            measuring = measure is not None and _is_time_to_measure(state.step, spec)
            while flying and (saving or measuring):
                news.tell(flying.popleft())
            if saving:
                checkpoint.save(state, spec.folder, identity, spec.keep_checkpoints, learner.ranks)
            if stopping:
                stop.leave()
            if measure is not None and measuring:
                scores = measure()
                learner.network.train()
                if log is not None:
                    log.write(scores, state.step)
                news.pause_ends()
        stop.leave()


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


def _is_time_to_measure(step: int, spec: Course) -> bool:
    return spec.evaluate_every is not None and step % spec.evaluate_every == 0 and step < spec.steps
