"""The training loop: forward, loss, backward, step; checkpoints and figures on the way. Every rank runs it."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from schemas.errors import RunError
from schemas.training import TrainingSpec
from training import checkpoint
from training.batches import Batch
from training.checkpoint import State
from training.learner import Learner
from training.logs import METRICS, Log
from training.schedule import learning_rate
from training.stalls import Stalls
from training.stopping import Stop

Progress = Callable[[int, int, float, float], None]
"""Called as progress(step, steps, loss, samples_per_s)."""
Measure = Callable[[], Mapping[str, Any]]
"""Scores of the model as it is now, by name."""

MOST_SKIPPED = 20
_NORMS_KEPT, _SPIKE = 100, 20.0


def optimizer_for(network: torch.nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the temperature (fewer than two dimensions) do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, betas=(0.9, spec.beta2), eps=1e-6, fused=True)
    for parameter in trained:  # there from the beginning, so that a checkpoint has somewhere to be read into
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    return optimizer


def run_steps(
    learner: Learner,
    state: State,
    batches: Iterator[Batch],
    spec: TrainingSpec,
    identity: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    measure: Measure | None = None,
    top_samples_per_s: float | None = None,
) -> None:
    """Train from the state's step to the last one. SIGTERM or Ctrl-C at any rank saves a checkpoint, then stops all.

    `measure` is called every `evaluate_every` steps. `top_samples_per_s` is what the devices could do at most.
    """
    learner.network.train()
    in_a_row, began = 0, time.perf_counter()
    stalls, seconds = Stalls(), 0.0
    with ExitStack() as opened:
        stop = opened.enter_context(Stop())
        log = opened.enter_context(Log(spec, state.step)) if learner.ranks.first else None
        while state.step < spec.steps:
            batch = next(batches)
            rate = learning_rate(state.step, spec)
            loss, norm = take_step(learner, state, batch, spec, rate)
            now = time.perf_counter()
            speed, began = spec.batch_size / (now - began), now
            if log is not None:
                mfu = {"mfu": round(speed / top_samples_per_s, 4)} if top_samples_per_s else {}
                stalls, seconds = stalls + batch.stalls, seconds + spec.batch_size / speed
                waits = {**batch.stalls.record(), "slowest": stalls.slowest(seconds)}
                times = {"samples_per_s": round(speed, 1), **waits, **mfu}
                counts = {
                    "skipped_steps": state.skipped,
                    "broken_pictures": state.broken,
                    "empty_captions": state.empty,
                }
                figures = {"loss": loss, "gradient": norm, "lr": rate, **learner.figures(), **counts, **times}
                log.write(figures, state.step)
            if progress is not None:
                progress(state.step, spec.steps, loss, speed)
            in_a_row = in_a_row + 1 if norm is None else 0
            _require_mostly_sound(in_a_row, state.step, spec)
            stopping = stop.agreed(learner.ranks, learner.device)
            if stopping or state.step % spec.save_every == 0 or state.step == spec.steps:
                checkpoint.save(state, spec.folder, identity, spec.keep_checkpoints, learner.ranks)
            if stopping:
                stop.leave()
            if measure is not None and _is_time_to_measure(state.step, spec):
                scores = measure()
                learner.network.train()
                if log is not None:
                    log.write(scores, state.step)
                began = time.perf_counter()
        stop.leave()


def take_step(
    learner: Learner, state: State, batch: Batch, spec: TrainingSpec, rate: float
) -> tuple[float, float | None]:
    """One step; (loss, length of the gradient). A step gone astray changes no weight, is counted, gives None."""
    state.optimizer.zero_grad(set_to_none=True)
    share = learner.gradients(batch, state.step)
    length = torch.nn.utils.clip_grad_norm_(learner.network.parameters(), spec.grad_clip)
    length = length.full_tensor() if hasattr(length, "full_tensor") else length  # of FSDP2's shares
    # Ranks decide alike, because they decide by the same numbers.
    loss, norm = learner.ranks.mean(torch.stack([share.float(), length.float()]).tolist(), learner.device)
    state.step, state.position = state.step + 1, batch.position
    state.broken, state.empty = state.broken + batch.broken, state.empty + batch.empty
    state.first_loss = loss if state.first_loss is None else state.first_loss
    state.last_loss = loss
    if not math.isfinite(loss) or _astray(norm, state, spec):
        state.skipped += 1
        return loss, None
    state.norms = [*state.norms, norm][-_NORMS_KEPT:]
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    learner.settle()
    if state.ema is not None:
        state.ema.update(learner.network)
    return loss, norm


def _astray(norm: float, state: State, spec: TrainingSpec) -> bool:
    """Whether a gradient is not finite, or a spike: beyond what is clipped, and far longer than those before it."""
    if not math.isfinite(norm):
        return True
    return len(state.norms) == _NORMS_KEPT and norm > spec.grad_clip and norm > _SPIKE * statistics.median(state.norms)


def _require_mostly_sound(in_a_row: int, step: int, spec: TrainingSpec) -> None:
    if in_a_row >= MOST_SKIPPED:
        raise RunError(
            f"training {spec.name}: loss or gradient went astray in {in_a_row} steps in a row, "
            f"up to step {step} (see {spec.folder / METRICS}); lower lr, or raise warmup_steps"
        )


def _is_time_to_measure(step: int, spec: TrainingSpec) -> bool:
    return spec.evaluate_every is not None and step % spec.evaluate_every == 0 and step < spec.steps
