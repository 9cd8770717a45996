"""The training loop: forward, loss, backward, step; checkpoints and metrics on the way.

Shapes: B pairs, D numbers per embedding.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from schemas.errors import RunError
from schemas.training import TrainingSpec
from training import checkpoint
from training.batches import Batch
from training.checkpoint import State
from training.losses import info_nce, pairwise_sigmoid
from training.model import Model
from training.stopping import Stop

Progress = Callable[[int, int, float, float], None]
"""Called as progress(step, steps, loss, samples_per_s)."""

METRICS = "metrics.jsonl"
MOST_SKIPPED = 20
_NORMS_KEPT, _SPIKE = 100, 20.0
_LARGEST_SCALE = math.log(100)  # CLIP, section 2.5


def optimizer_for(network: torch.nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """AdamW; gains, biases and the temperature (fewer than two dimensions) do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(0.9, spec.beta2), eps=1e-6, fused=True)


def learning_rate(step: int, spec: TrainingSpec) -> float:
    """Linear warm-up, then half a cosine down to zero; `step` counts from 0."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    done = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * done))


def loss_of(model: Model, batch: Batch, spec: TrainingSpec) -> Tensor:
    """The loss of a batch: the towers in bfloat16 where asked, the logits always in float32."""
    bf16 = spec.precision == "bf16" or (spec.precision == "auto" and model.device.type == "cuda")
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        image_BD = model.embed_pictures(torch.from_numpy(batch.pixels_BCHW))
        text_BD = model.embed_captions(torch.from_numpy(batch.tokens_BT))
    scale = model.network.logit_scale.exp()
    if spec.loss == "siglip":
        return pairwise_sigmoid(image_BD, text_BD, scale, model.network.logit_bias, spec.loss_chunk)
    return info_nce(image_BD, text_BD, scale, spec.loss_chunk)


def run_steps(
    model: Model,
    state: State,
    batches: Iterator[Batch],
    spec: TrainingSpec,
    identity: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Train from the state's step to the last one. SIGTERM or Ctrl-C saves a checkpoint, then stops as ever."""
    model.network.train()
    in_a_row, began = 0, time.perf_counter()
    with Stop() as stop, _metrics_from(spec.folder / METRICS, state.step) as metrics:
        while state.step < spec.steps:
            batch = next(batches)
            wait_s = time.perf_counter() - began
            rate = learning_rate(state.step, spec)
            loss, norm = take_step(model, state, batch, spec, rate)
            in_a_row = in_a_row + 1 if norm is None else 0
            state.position, state.broken = batch.position, state.broken + batch.broken
            now = time.perf_counter()
            speed, began = spec.batch_size / (now - began), now
            times = {"samples_per_s": round(speed, 1), "wait_s": round(wait_s, 4)}
            _write(metrics, {**_record(model, state, loss, norm), "lr": rate, **times})
            if progress is not None:
                progress(state.step, spec.steps, loss, speed)
            if in_a_row >= MOST_SKIPPED:
                raise RunError(
                    f"training {spec.name}: loss or gradient went astray in {in_a_row} steps in a row, "
                    f"up to step {state.step} (see {spec.folder / METRICS}); lower lr, or raise warmup_steps"
                )
            if stop.asked or state.step % spec.save_every == 0 or state.step == spec.steps:
                checkpoint.save(state, spec.folder, identity)
                stop.leave()
        stop.leave()


def take_step(model: Model, state: State, batch: Batch, spec: TrainingSpec, rate: float) -> tuple[float, float | None]:
    """One step; (loss, length of the gradient). A step gone astray changes no weight, is counted, gives None."""
    loss = loss_of(model, batch, spec)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(model.network.parameters(), spec.grad_clip))
    value = float(loss.detach())
    state.step += 1
    state.first_loss = value if state.first_loss is None else state.first_loss
    state.last_loss = value
    if not math.isfinite(value) or _astray(norm, state, spec):
        state.skipped += 1
        return value, None
    state.norms = [*state.norms, norm][-_NORMS_KEPT:]
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    with torch.no_grad():
        model.network.logit_scale.clamp_(0, _LARGEST_SCALE)
    return value, norm


def _astray(norm: float, state: State, spec: TrainingSpec) -> bool:
    """Whether a gradient is not finite, or a spike: beyond what is clipped, and far longer than those before it."""
    if not math.isfinite(norm):
        return True
    return len(state.norms) == _NORMS_KEPT and norm > spec.grad_clip and norm > _SPIKE * statistics.median(state.norms)


def _record(model: Model, state: State, loss: float, norm: float | None) -> dict[str, Any]:
    return {
        "step": state.step,
        "loss": loss if math.isfinite(loss) else None,  # JSON has no NaN
        "gradient": norm,
        "logit_scale": float(model.network.logit_scale.detach()),
        "skipped_steps": state.skipped,
        "broken_pictures": state.broken,
    }


def _write(metrics: TextIO, record: Mapping[str, Any]) -> None:
    metrics.write(json.dumps(record) + "\n")
    metrics.flush()


def _metrics_from(path: Path, step: int) -> TextIO:
    """The metrics file, without the lines of steps that will be done again."""
    lines = path.read_bytes().splitlines(keepends=True)[:step] if path.exists() else []
    path.write_bytes(b"".join(lines))
    return open(path, "a", encoding="utf-8")
