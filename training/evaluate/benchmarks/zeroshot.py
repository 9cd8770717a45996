"""Zero-shot classification: which class a picture is of.

Annotations are {"classes": [names], "labels": {id: name}}; predictions {id: name}, or {id: [names]}, best first, where
five give top-5. `--official` changes nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.errors import InputError
from training.evaluate.annotation_files import Text, checked, only_file, read_json
from training.evaluate.answers import read_answers, require_same
from training.evaluate.benchmark import Question
from training.evaluate.pictures import Picture
from training.evaluate.zeroshot import MOST_RANKS, Scores, classification

_EXPECTED = "`classes`, a list, and `labels`, an object of id and class"


class _File(TypedDict):
    classes: Annotated[list[Text], Field(min_length=1)]
    labels: Annotated[dict[str, Text], Field(min_length=1)]


_FORM = TypeAdapter(_File)


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Top-1, mean per-class recall, top-5 where rankings are long enough, and each class. Raises InputError."""
    classes, labels = _read(annotations)
    places = {name: place for place, name in enumerate(classes)}
    said = read_answers(predictions)
    require_same(predictions, labels, said)
    ranked = [said[key] if isinstance(said[key], list) else [said[key]] for key in labels]
    length = min(MOST_RANKS, *(len(names) for names in ranked))
    if not length:
        raise InputError(f"predictions {predictions}: an empty list predicts nothing")
    ranked_NR = np.array([[places.get(str(name), -1) for name in names[:length]] for names in ranked])
    return classification(ranked_NR, np.array([places[label] for label in labels.values()]), list(places))


def questions(annotations: Sequence[Path]) -> list[Question]:
    """A question per picture, whose id is its path, with all classes to choose from."""
    classes, labels = _read(annotations)
    return [question(key, Path(key), classes) for key in labels]


def question(key: str, picture: Picture, classes: Sequence[str]) -> Question:
    """Which of the classes a picture is of."""
    prompt = f"What is in this picture? Answer with one of: {', '.join(classes)}."
    return Question(key, (picture,), prompt, tuple(classes))


def entry(question: Question, text: str) -> dict[str, Any]:
    """The class whose name a text is or alone holds, or the text itself, which is then no class."""
    said = text.strip().strip(".").lower()
    named = [name for name in question.options if name.lower() == said]
    named = named or [name for name in question.options if name.lower() in said]
    return {"id": question.id, "answer": named[0] if len(named) == 1 else text.strip()}


def _read(annotations: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    path = only_file(annotations, _EXPECTED)
    found = checked(path, read_json(path), _FORM, _EXPECTED)
    classes, labels = found["classes"], found["labels"]
    strange = [f"{key}: {label}" for key, label in labels.items() if label not in classes]
    if strange:
        raise InputError(f"annotations {path}: the label of {strange[0]} is none of `classes`")
    return classes, labels
