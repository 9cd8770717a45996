"""The data of a stage, which stay the same until it is finished."""

import json
from collections.abc import Sequence
from typing import Any

from schemas.generative import Captions, Instructions
from training.curated_set import CuratedSet
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


def keep_versions(course: StageCourse, sources: Sequence[Source]) -> None:
    """Note which versions the stage begins with."""
    instructions = (entry for entry in course.stage.data if isinstance(entry, Instructions))
    taken = [_captions(one) if isinstance(one, Captioned) else next(instructions) for one in sources]
    put_json(course.folder / _DATA, {"asked": _asked(course), "taken": [one.model_dump(mode="json") for one in taken]})


def curated_of(sources: Sequence[Source]) -> list[CuratedSet]:
    """The curated sets among the sources."""
    return [one.curated for one in sources if isinstance(one, Captioned)]


def _captions(source: Captioned) -> Captions:
    """The one version of a set that a source reads, as an entry of `data` would name it."""
    one = source.curated
    folder = str(one.location).rsplit("/", 1)[0]
    return Captions(
        set=f"{folder}@{one.manifest.version}", weight=one.weight, captions=one.captions, prompts=tuple(source.prompts)
    )


def _asked(course: StageCourse) -> list[dict[str, Any]]:
    return [entry.model_dump(mode="json") for entry in course.stage.data]


def _entry(record: dict[str, Any]) -> Captions | Instructions:
    kind = Instructions if "instructions" in record else Captions
    return kind.model_validate(record)
