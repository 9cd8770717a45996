"""A stage of a generative training as the loop follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from schemas.generative import GenerativeSpec, Stage

_MODEL_KEYS = ("family", "weights", "encoder", "connector", "llm", "tokenizer", "template", "image", "seed")


@dataclass(frozen=True)
class StageCourse:
    """Stage `number` of a specification, counted from 0; its rates are shares of the highest one."""

    spec: GenerativeSpec
    number: int

    @property
    def stage(self) -> Stage:
        """What the specification says of it."""
        return self.spec.stages[self.number]

    @property
    def name(self) -> str:
        """`demo_llava, stage 1 of 2`, for people."""
        return f"{self.spec.name}, stage {self.number + 1} of {len(self.spec.stages)}"

    @property
    def folder(self) -> Path:
        """Its own, inside the run's."""
        return self.spec.folder / f"stage-{self.number + 1}"

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.stage.steps

    @property
    def batch_size(self) -> int:
        """Samples or packs per step."""
        return self.stage.batch_size

    @property
    def lr(self) -> float:
        """The highest rate of its parts."""
        rates = self.stage.lr
        return max(rates.values()) if isinstance(rates, Mapping) else rates

    @property
    def schedule(self) -> Literal["cosine", "constant"]:
        """As it says."""
        return self.stage.schedule

    @property
    def warmup(self) -> int:
        """By default 3 % of the steps."""
        asked = self.stage.warmup_steps
        return min(round(0.03 * self.steps), self.steps - 1) if asked is None else asked

    @property
    def cooldown(self) -> int:
        """By default a fifth of the steps, where the rate is constant."""
        if self.schedule != "constant":
            return 0
        asked = self.stage.cooldown_steps
        return min(self.steps // 5, self.steps - self.warmup) if asked is None else asked

    @property
    def grad_clip(self) -> float:
        """As it says."""
        return self.stage.grad_clip

    @property
    def weight_decay(self) -> float:
        """As it says."""
        return self.stage.weight_decay

    @property
    def beta2(self) -> float:
        """As it says."""
        return self.stage.beta2

    @property
    def save_every(self) -> int:
        """The run's."""
        return self.spec.save_every

    @property
    def keep_checkpoints(self) -> int:
        """The run's."""
        return self.spec.keep_checkpoints

    @property
    def evaluate_every(self) -> int | None:
        """Stages are not scored on the way."""
        return None

    @property
    def log(self) -> Sequence[str]:
        """The run's."""
        return self.spec.log

    def model_dump(self, *, mode: str) -> Mapping[str, Any]:
        """The whole specification, and which stage of it this is."""
        return self.spec.model_dump(mode=mode) | {"stage": self.number + 1}

    def identity(self, data: Sequence[str]) -> dict[str, Any]:
        """What decides the trained weights: the model, the stages up to this one, and the data as they are now."""
        whole = self.spec.model_dump(mode="json", include=set(_MODEL_KEYS) | {"stages", "precision"})
        stages = whole.pop("stages")[: self.number + 1]
        places = {"set", "instructions", "images"}  # the data themselves are named by their digests
        mixed = [{k: v for k, v in one.items() if k not in places} for one in stages[-1].pop("data")]
        return whole | {"stages": stages, "mixture": mixed, "data": list(data)}
