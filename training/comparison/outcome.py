"""What came of one training of a comparison: `outcome.json` in its run folder, put when it is finished and scored."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.any_training import AnyTraining
from schemas.errors import RunError
from training.comparison.places import folders_of_steps, labels_of
from training.logs import METRICS
from training.news import STEP_SECONDS
from training.run_folder import put_json

_FILE = "outcome.json"
_NO_SCORE = ("l2",)  # what a linear probe chose for itself
_ENDS = ("_low", "_high")  # of an interval over questions, which stand beside the score itself
AVERAGE = "average.top1"


@dataclass(frozen=True)
class Outcome:
    """A finished training: on which version, on which terms, its scores by `evaluation.metric`, and its cost.

    `seconds` are those of its steps, without evaluations.
    """

    set: str
    version: str
    seed: int
    terms: Mapping[str, Any]
    scores: Mapping[str, float]
    seconds: float
    device: str

    def put(self, folder: Path) -> None:
        """Note it in the run's folder."""
        put_json(folder / _FILE, asdict(self))


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of the training in a folder; None where it is not finished. Raises RunError."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove it, and the same command evaluates again") from error


def scores_of(spec: AnyTraining, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores among a training's results, as `evaluation.metric`.

    Where several evaluations have a top1, their mean is one more score, as DataComp's average over tasks.
    """
    scores = {
        f"{evaluation}.{metric}": value
        for evaluation in labels_of(spec)
        if isinstance(record := metrics.get(evaluation), Mapping)
        for metric, value in record.items()
        if isinstance(value, float) and metric not in _NO_SCORE and not _is_end(metric, record)
    }
    tops = [scores[name] for one in spec.evaluate if (name := f"{one.label}.top1") in scores]
    average = {AVERAGE: sum(tops) / len(tops)} if len(tops) > 1 else {}
    return scores | average


def _is_end(metric: str, record: Mapping[str, Any]) -> bool:
    return any(metric.endswith(end) and metric.removesuffix(end) in record for end in _ENDS)


def seconds_of_steps(spec: AnyTraining) -> float:
    """How long a run's steps took, of all the processes that it was at work in."""
    files = [folder / METRICS for folder in folders_of_steps(spec)]
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return round(sum(line.get(STEP_SECONDS, 0.0) for line in lines), 1)


def device_name(device: str) -> str:
    """What a training ran on: CPU, or the GPU's name."""
    if device == "cpu":
        return "CPU"
    import torch

    return torch.cuda.get_device_name(device)
