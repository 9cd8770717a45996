"""The data of a stage, which stay the same until it is finished."""

import json
from collections.abc import Sequence
from typing import Any

from schemas.generative import Captions, Instructions
from training.curated_set import CuratedSet, open_sets
from training.generative.course import StageCourse
from training.generative.mixture import Captioned, Source, open_sources
from training.run_folder import RESULTS, put_json

_DATA = "data.json"


def sources_of(course: StageCourse) -> list[Source]:
    """What the stage learns from; one that was stopped goes on with the versions that it began with.

    Raises InputError, RunError.
    """
    entries: Sequence[Captions | Instructions] = course.stage.data
    kept = course.folder / _DATA
    if kept.is_file() and not (course.folder / RESULTS).is_file():
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["asked"] == _asked(course):
            entries = [_entry(one) for one in record["taken"]]
    return open_sources(entries, course.spec.image.frames)


def keep_versions(course: StageCourse) -> None:
    """Note which versions the stage begins with."""
    taken: list[dict[str, Any]] = []
    for entry in course.stage.data:
        dumped = entry.model_dump(mode="json")
        if isinstance(entry, Captions):
            taken += [dumped | {"set": _version(one), "weight": one.weight} for one in open_sets([entry])]
        else:
            taken.append(dumped)
    put_json(course.folder / _DATA, {"asked": _asked(course), "taken": taken})


def curated_of(sources: Sequence[Source]) -> list[CuratedSet]:
    """The curated sets among the sources."""
    return [one.curated for one in sources if isinstance(one, Captioned)]


def _version(one: CuratedSet) -> str:
    folder = str(one.location).rsplit("/", 1)[0]
    return f"{folder}@{one.manifest.version}"


def _asked(course: StageCourse) -> list[dict[str, Any]]:
    return [entry.model_dump(mode="json") for entry in course.stage.data]


def _entry(record: dict[str, Any]) -> Captions | Instructions:
    kind = Instructions if "instructions" in record else Captions
    return kind.model_validate(record)
