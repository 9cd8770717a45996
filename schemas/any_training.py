"""A training specification of whichever task: what it says under `task` decides how the rest is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from schemas.generative import GenerativeSpec
from schemas.reading import read_yaml
from schemas.training import TrainingSpec

AnyTraining = TrainingSpec | GenerativeSpec


class _Task(BaseModel):
    task: Literal["contrastive", "generative"] = Field(description="what is trained")


def read_training(path: Path | str, overrides: Sequence[str] = ()) -> AnyTraining:
    """The specification in a file, `${VAR}` replaced and overrides applied. Raises SpecError."""
    if read_yaml(path, _Task).spec.task == "generative":
        return read_yaml(path, GenerativeSpec, overrides=overrides).spec
    return read_yaml(path, TrainingSpec, overrides=overrides).spec


def training_of(record: Mapping[str, Any]) -> AnyTraining:
    """The specification that a run has noted of itself."""
    model = GenerativeSpec if record.get("task") == "generative" else TrainingSpec
    return model.model_validate(record)
