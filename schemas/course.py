"""What the training loop follows: so many steps of such a size, at such a rate; every specification gives one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol


class Course(Protocol):
    """A stretch of training."""

    @property
    def name(self) -> str:
        """Of the run, for people."""

    @property
    def folder(self) -> Path:
        """Where its checkpoints and figures lie."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""

    @property
    def batch_size(self) -> int:
        """Samples per step, of all ranks."""

    @property
    def lr(self) -> float:
        """Highest learning rate."""

    @property
    def schedule(self) -> Literal["cosine", "constant"]:
        """How the rate goes after the warm-up."""

    @property
    def warmup(self) -> int:
        """Steps of linear warm-up."""

    @property
    def cooldown(self) -> int:
        """Steps of linear cool-down at the end of a constant schedule."""

    @property
    def grad_clip(self) -> float:
        """Longest gradient that a step takes."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW, on weights of two dimensions or more."""

    @property
    def beta2(self) -> float:
        """Of AdamW."""

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""

    @property
    def keep_checkpoints(self) -> int:
        """How many of the newest are kept."""

    @property
    def evaluate_every(self) -> int | None:
        """Steps between evaluations; None evaluates at the end alone."""

    @property
    def log(self) -> Sequence[str]:
        """Boards that are told beside metrics.jsonl."""

    def model_dump(self, *, mode: str) -> Mapping[str, Any]:
        """The specification, for a board."""
