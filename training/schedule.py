"""How the learning rate goes: a linear warm-up, then half a cosine, or constant with a linear cool-down."""

import math

from schemas.course import Course


def learning_rate(step: int, spec: Course) -> float:
    """The rate of a step, counted from 0; both schedules reach zero after the last one."""
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if spec.schedule == "constant":
        return spec.lr * min(1.0, (spec.steps - step) / spec.cooldown) if spec.cooldown else spec.lr
    done = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * done))
