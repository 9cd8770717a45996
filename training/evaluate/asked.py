"""What a model is asked to be scored: a benchmark's questions, a set's pictures to describe, or which class they are.

All of it becomes a benchmark: its files are the official ones, or are written beside the predictions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.generative import Described, Questioned
from schemas.training import ZeroShot
from training.evaluate.benchmark import Question, load_benchmark
from training.evaluate.benchmarks.zeroshot import question as which_class
from training.evaluate.labelled import read_labelled
from training.evaluate.own_command import OwnCommand
from training.evaluate.shown import Shown
from training.evaluate.sources import read_examples

_OWN = Shown(own=True)


@dataclass(frozen=True)
class Asked:
    """Questions of a benchmark with their pictures; `annotations` are its files, or what such a file would hold.

    `own` is a command of the user's instead, which asks what it likes. Of a `part` there are predictions, but no score:
    a mean over fewer questions is another number.
    """

    name: str
    benchmark: str = ""
    annotations: tuple[Path, ...] | Mapping[str, Any] = ()
    questions: tuple[Question, ...] = ()
    shown: Shown = _OWN
    own: OwnCommand | None = None
    part: bool = False


def open_asked(evaluations: Sequence[Questioned]) -> list[Asked]:
    """The evaluations with their questions; pictures are looked for, not read. Raises InputError."""
    names = [one.label for one in evaluations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"evaluate: two evaluations are called {twice[0]!r}; give each a `name` of its own")
    return [_opened(one) for one in evaluations]


def _opened(asked: Questioned) -> Asked:
    if asked.captions is not None:
        return of_captions(asked.captions)
    if asked.zeroshot is not None:
        return of_classes(asked.zeroshot)
    if asked.command is not None:
        return Asked(asked.label, own=OwnCommand(asked.command, Path(str(asked.results))))
    images = None if asked.images is None else Path(asked.images)
    return of_benchmark(str(asked.benchmark), [Path(path) for path in asked.annotations], images, asked.label)


def of_benchmark(
    benchmark: str, annotations: Sequence[Path], images: Path | None, name: str | None = None, limit: int | None = None
) -> Asked:
    """A benchmark's own questions, the first `limit` of them. Raises InputError, also where a picture is not there."""
    found = load_benchmark(benchmark).questions(annotations)
    questions = tuple(found[:limit])
    shown = Shown(images)
    for question in questions:
        shown.require(question)
    part = len(questions) < len(found)
    return Asked(name or benchmark, benchmark, tuple(annotations), questions, shown, part=part)


def of_captions(asked: Described) -> Asked:
    """Pictures to describe, as COCO's captions are scored. Raises InputError where one has no caption."""
    examples = read_examples(asked, f"captions {asked.name}")
    without = [str(example.picture) for example in examples if not example.captions]
    if without:
        raise InputError(
            f"captions {asked.name}: {len(without):,} of {len(examples):,} pictures in {asked.place} have no caption, "
            f"such as {without[0]}"
        )
    questions = tuple(
        Question(str(number), (example.picture,), asked.prompt, length="sentence")
        for number, example in enumerate(examples)
    )
    captions = [(number, text) for number, example in enumerate(examples) for text in example.captions]
    annotations = {
        "images": [{"id": number} for number in range(len(examples))],
        "annotations": [{"id": n, "image_id": number, "caption": text} for n, (number, text) in enumerate(captions)],
    }
    return Asked(asked.name, "coco_captions", annotations, questions)


def of_classes(asked: ZeroShot) -> Asked:
    """Pictures and the classes to choose from: the model is asked for one, and its words are matched with the names.

    Raises InputError.
    """
    found = read_labelled(asked)
    names = found.class_names
    labels = {str(number): names[label] for number, label in enumerate(found.labels)}
    questions = tuple(which_class(str(number), picture, names) for number, picture in enumerate(found.files))
    return Asked(asked.name, "zeroshot", {"classes": list(names), "labels": labels}, questions)
