"""AdamW, whose moments are there from the beginning, so that a checkpoint has somewhere to be read into."""

from collections.abc import Sequence
from typing import Any

import torch

from schemas.course import Course


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
