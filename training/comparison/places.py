"""Where in a training the sets of a comparison are put, one after the other, and what each is measured by.

Of a contrastive training it is the one entry of `data`; of a generative one the curated set in each stage that has one,
whose prompts, instructions beside it and shares stay as they are.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schemas.any_training import AnyTraining
from schemas.errors import InputError
from schemas.generative import Captions, GenerativeSpec, Instructions, Stage
from schemas.training import TrainingSet


def captions_of(spec: AnyTraining) -> Mapping[str, float]:
    """Which captions of a set are trained on."""
    return next(_places(spec)).captions


def with_set(spec: AnyTraining, manifest: str) -> dict[str, Any]:
    """The specification's data, as JSON values, with that set in every place of one."""
    if not isinstance(spec, GenerativeSpec):
        return {"data": [{"set": manifest, "captions": dict(captions_of(spec))}]}
    stages = spec.model_dump(mode="json", include={"stages"})["stages"]
    for stage in stages:
        for entry in stage["data"]:
            entry |= {"set": manifest} if "instructions" not in entry else {}
    return {"stages": stages}


def labels_of(spec: AnyTraining) -> list[str]:
    """What the evaluations of a training are called in its results."""
    averaged = not isinstance(spec, GenerativeSpec) and spec.ema
    return [one.label + suffix for one in spec.evaluate for suffix in ("", *(["_ema"] if averaged else []))]


def steps_of(spec: AnyTraining) -> int:
    """Optimiser steps, of all stages together."""
    return sum(stage.steps for stage in spec.stages) if isinstance(spec, GenerativeSpec) else spec.steps


def samples_of(spec: AnyTraining) -> int:
    """How many samples of the set are seen; beside others, as their weights say."""
    if not isinstance(spec, GenerativeSpec):
        return spec.steps * spec.batch_size
    return round(
        sum(
            stage.steps * stage.batch_size * own.weight / sum(entry.weight for entry in stage.data)
            for stage, own in _stages(spec)
        )
    )


def largest_batch_of(spec: AnyTraining) -> int:
    """Samples in the largest batch that a set is to fill."""
    if not isinstance(spec, GenerativeSpec):
        return spec.batch_size
    return max(stage.batch_size for stage, _ in _stages(spec))


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
    if not list(_stages(spec)):
        raise InputError(
            f"compare: training {spec.name} learns from instructions alone; name a curated set in the `data` of a "
            "stage (`set:`), in whose place each of those to compare is put"
        )


def _places(spec: AnyTraining) -> Iterator[TrainingSet]:
    if isinstance(spec, GenerativeSpec):
        yield from (own for _, own in _stages(spec))
    else:
        yield from spec.data


def _stages(spec: GenerativeSpec) -> Iterator[tuple[Stage, Captions]]:
    """The stages that learn from a curated set, with its entry."""
    yield from ((stage, own) for stage in spec.stages for own in _captions(stage))


def _captions(stage: Stage) -> list[Captions]:
    return [entry for entry in stage.data if not isinstance(entry, Instructions)]
