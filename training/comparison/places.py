"""Where in a training the sets of a comparison are put, one after the other, and what each is measured by.

Of a contrastive training it is the one entry of `data`; of a generative one the curated set in each stage that has one,
whose prompts, instructions beside it and shares stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.any_training import AnyTraining
from schemas.errors import InputError
from schemas.generative import Captions, GenerativeSpec, Instructions, Stage


@dataclass(frozen=True)
class Place:
    """A stretch of training in which a set is learnt from: so many steps of so many samples, its `share` of them."""

    captions: Mapping[str, float]
    steps: int
    batch_size: int
    share: float


def places_of(spec: AnyTraining) -> list[Place]:
    """Where the sets are put, in order."""
    if not isinstance(spec, GenerativeSpec):
        return [Place(one.captions, spec.steps, spec.batch_size, 1.0) for one in spec.data]
    return [
        Place(own.captions, stage.steps, stage.batch_size, own.weight / sum(entry.weight for entry in stage.data))
        for stage in spec.stages
        for own in _captions(stage)
    ]


def samples_of(spec: AnyTraining) -> int:
    """How many samples of the set are seen; beside others, as their weights say."""
    return round(sum(place.steps * place.batch_size * place.share for place in places_of(spec)))


def steps_of(spec: AnyTraining) -> int:
    """Optimiser steps, of all stages together."""
    return sum(stage.steps for stage in spec.stages) if isinstance(spec, GenerativeSpec) else spec.steps


def with_set(spec: AnyTraining, manifest: str) -> dict[str, Any]:
    """The specification's data, as JSON values, with that set in every place of one."""
    if not isinstance(spec, GenerativeSpec):
        return {"data": [{"set": manifest, "captions": dict(spec.data[0].captions)}]}
    stages = spec.model_dump(mode="json", include={"stages"})["stages"]
    for stage in stages:
        for entry in stage["data"]:
            entry |= {"set": manifest} if "instructions" not in entry else {}
    return {"stages": stages}


def labels_of(spec: AnyTraining) -> list[str]:
    """What the evaluations of a training are called in its results."""
    averaged = not isinstance(spec, GenerativeSpec) and spec.ema
    return [one.label + suffix for one in spec.evaluate for suffix in ("", *(["_ema"] if averaged else []))]


def folders_of_steps(spec: AnyTraining) -> list[Path]:
    """The folders that hold the logs of its steps."""
    if not isinstance(spec, GenerativeSpec):
        return [spec.folder]
    return [spec.folder / f"stage-{number}" for number in range(1, len(spec.stages) + 1)]


def require_places(spec: AnyTraining) -> None:
    """Raise InputError where it cannot be said in whose place the sets are put, or how often they would be seen."""
    if not isinstance(spec, GenerativeSpec):
        if len(spec.data) != 1:
            raise InputError(
                f"compare: training {spec.name} mixes {len(spec.data)} sets, and each set is compared alone; leave one "
                "entry in `data`, in whose place each of them is put"
            )
        return
    for number, stage in enumerate(spec.stages):
        own = _captions(stage)
        where = f"compare: training {spec.name}, stages[{number}]"
        if len(own) > 1:
            raise InputError(
                f"{where} mixes {len(own)} curated sets, and each set is compared alone; leave one `set` in its "
                "`data`, in whose place each of them is put (files of instructions beside it stay)"
            )
        if own and stage.pack:
            raise InputError(
                f"{where} packs captions: of short ones more are seen than of long ones, and what is trained "
                "unequally is not compared; say `pack: false` there"
            )
    if not places_of(spec):
        raise InputError(
            f"compare: training {spec.name} learns from instructions alone; name a curated set in the `data` of a "
            "stage (`set:`), in whose place each of those to compare is put"
        )


def _captions(stage: Stage) -> list[Captions]:
    return [entry for entry in stage.data if not isinstance(entry, Instructions)]
