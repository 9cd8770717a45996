"""ScienceQA: questions of school lessons with options, some about a picture (Lu et al. 2022, arXiv:2209.09513).

Annotations are `problems.json` and, where it is named, `pid_splits.json`; the test split counts. Results are
{"results": {id: number of the option}} as the official script has them, {id: text}, or LLaVA's [{"question_id",
"text"}]. Of a text, "B", "B. …" and "The answer is B." are read; anything else is wrong.

`--official`: LLaVA's reading takes any sign for the period, so that "The answer is Because" is B.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_json
from training.evaluate.answers import read_answers, require_same, text_of
from training.evaluate.benchmark import Question
from training.evaluate.tally import Judged, mean, tally
from training.evaluate.zeroshot import Scores

_EXPECTED = "problems.json: an object of id and {question, choices, answer, …}"
_ANSWER = re.compile(r"The answer is ([A-Z])\.")
_OFFICIAL_ANSWER = re.compile(r"The answer is ([A-Z]).", re.DOTALL)
_PRIMARY = 6


class _Row(TypedDict):
    question: str
    choices: Annotated[list[Text], Field(min_length=1)]
    answer: int
    hint: NotRequired[str | None]
    image: NotRequired[str | None]
    grade: NotRequired[str | None]
    subject: NotRequired[str | None]
    split: NotRequired[str | None]


_PROBLEMS = TypeAdapter(Annotated[dict[str, _Row], Field(min_length=1)])
_SPLITS = TypeAdapter(dict[str, list[Text]])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy, as `accuracy_img` with a picture alone, and by subject, context and grade. Raises InputError."""
    rows = _read(annotations)
    said = read_answers(predictions, ("question_id",), ("text",), within="results")
    require_same(predictions, rows, said)
    judged = {key: _judged(row, _option(predictions, key, said[key], row, official)) for key, row in rows.items()}
    found = tally(list(judged.values()), "accuracy")
    with_picture = [judged[key].score for key, row in rows.items() if row.get("image")]
    more = {"accuracy_img": mean(with_picture)} if with_picture else {}
    return replace(found, metrics={**found.metrics, **more})


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions with their context; a picture lies in the folder of its id."""
    return [
        Question(
            key,
            _pictures(key, row),
            prompts.choose(row["question"], row["choices"], f"Context: {row['hint']}" if row.get("hint") else ""),
            tuple(row["choices"]),
            "letter",
        )
        for key, row in _read(annotations).items()
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of LLaVA's results file."""
    return {"question_id": question.id, "text": text.strip()}


def letter_in(text: str, letters: str, *, official: bool) -> str:
    """The letter that a text names, or ""."""
    text = text.strip()
    if text in tuple(letters) or (text[:1] in tuple(letters) and text[1:3] == ". "):
        return text[0]
    named = (_OFFICIAL_ANSWER if official else _ANSWER).findall(text)
    return named[0] if len(named) == 1 else ""


def _option(path: Path, key: str, answer: Any, row: _Row, official: bool) -> int | None:
    """The number of the option that is answered, or None."""
    if isinstance(answer, int):
        return answer if 0 <= answer < len(row["choices"]) else None
    letter = letter_in(text_of(path, key, answer), ascii_uppercase[: len(row["choices"])], official=official)
    return ascii_uppercase.index(letter) if letter else None


def _judged(row: _Row, option: int | None) -> Judged:
    contexts = [name for name, column in (("text", "hint"), ("image", "image")) if row.get(column)]
    groups: dict[str, str | Sequence[str]] = {"context": contexts or ["none"]}
    groups["subject"] = row.get("subject") or ()
    grade = (row.get("grade") or "").removeprefix("grade")
    if grade.isdecimal():
        groups["grade"] = "1 to 6" if int(grade) <= _PRIMARY else "7 to 12"
    return Judged(float(option == row["answer"]), groups, option is not None)


def _pictures(key: str, row: _Row) -> tuple[Path, ...]:
    image = row.get("image")
    return (Path(row.get("split") or "test") / key / image,) if image else ()


def _read(annotations: Sequence[Path]) -> dict[str, _Row]:
    """The problems of the test split by id."""
    problems, kept = None, None
    files = files_of(annotations)
    for path in files:
        known = read_json(path)
        if isinstance(known, dict) and isinstance(known.get("test"), list):
            kept = checked(path, known, _SPLITS, "pid_splits.json: lists of ids by split")["test"]
        else:
            problems = checked(path, known, _PROBLEMS, _EXPECTED)
    if problems is None:
        misfit(files[0], _EXPECTED, {"test": kept})
    if kept is None:
        kept = [key for key, row in problems.items() if (row.get("split") or "test") == "test"]
    unknown = [key for key in kept if key not in problems]
    if unknown or not kept:
        misfit(files[0], "a test split, and a problem for each of its ids", unknown)
    return {key: problems[key] for key in kept}
