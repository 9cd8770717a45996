"""The folder of a training run: what lies in it, who has it, and what it was trained on."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.any_training import AnyTraining
from schemas.course import Course
from schemas.errors import InputError
from schemas.pins import put_pin
from schemas.training import TrainingSpec
from training.stored_files import is_url

if TYPE_CHECKING:
    from training.curated_set import CuratedSet


@dataclass(frozen=True)
class TrainResult:
    """Where the results lie, the model's folder, and what came out.

    open_clip loads a contrastive model as `local-dir:FOLDER`, transformers a generative one.
    """

    folder: Path
    model_folder: Path
    metrics: dict[str, Any]


MODEL, AVERAGED, EXPORTS, EVALUATIONS = "model", "model_ema", "exports", "evaluations"
RECORD, RESULTS = "training.json", "results.json"


def sets_of(spec: TrainingSpec) -> list["CuratedSet"]:
    """The data to train on; a training that was stopped goes on with the versions that it began with."""
    from training.checkpoint import newest
    from training.curated_set import CuratedSet, open_sets

    if newest(spec.folder) is None or (spec.folder / RESULTS).is_file():
        return open_sets(spec.data)
    record = json.loads((spec.folder / RECORD).read_text(encoding="utf-8"))
    if record["spec"]["data"] != spec.model_dump(mode="json")["data"]:
        return open_sets(spec.data)
    return [CuratedSet(one["manifest"], one["captions"], one["weight"]) for one in record["data"]]


@contextlib.contextmanager
def begun(spec: Course, sets: Sequence["CuratedSet"]) -> Iterator[None]:
    """Have the run's folder for this training alone; the versions it reads are pinned. Raises InputError."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    with open(spec.folder / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"training {spec.name}: another training is at work in {spec.folder}; wait for it, or name another "
                "`output`"
            ) from None
        for one in sets:
            if is_url(one.location):
                continue  # whoever keeps a set behind a URL prunes it there
            put_pin(one.path, one.manifest.version, f"the training run {spec.name} in {spec.folder.resolve()}")
        yield


def put_record(spec: AnyTraining, sets: Sequence["CuratedSet"]) -> None:
    """Note what is trained on what, for whoever goes on with it."""
    read = [{"manifest": _whole(one), "weight": one.weight, "captions": dict(one.captions)} for one in sets]
    put_json(spec.folder / RECORD, {"spec": spec.model_dump(mode="json"), "data": read})


def put_json(path: Path, record: Any) -> None:
    """Write a JSON file; a crash leaves the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def _whole(one: "CuratedSet") -> str:
    """Where a set's manifest lies, from whichever folder it is looked for."""
    return str(one.location) if is_url(one.location) else str(one.path.resolve())
