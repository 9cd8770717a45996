"""MMBench: questions with options, each asked again with the options turned round (Liu et al. 2023, arXiv:2307.06281).

Annotations are the TSV with index, question, hint, A to D, answer, category, l2-category and image; a question's
copies have its index plus a million times their number. Circular: right only where every copy is. Vanilla: the first
alone. Results are a table (TSV, CSV, JSON) with index and prediction, for every row.

`--official`: VLMEvalKit's inference takes the article in "A cat" for the letter A, and finds "cat" in "cattle".
Its judge, a chat model, and its random pick where that fails cannot be repeated: with `--official` as without, an
answer that names no option is wrong.
"""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.errors import InputError
from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, misfit, only_file, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.option_letters import inferred
from training.evaluate.tally import Judged, mean, tally
from training.evaluate.zeroshot import Scores

_COPIES = 1_000_000
_EXPECTED = "a TSV with index, question, A, B, C, D, answer"
_LEAST_BASE64 = 64  # a shorter text in the column is the index of the row that has the picture
_Kinds = TypedDict("_Kinds", {"l2-category": NotRequired[str], "category": NotRequired[str], "split": NotRequired[str]})


class _Row(_Kinds):
    index: Annotated[Text, Field(pattern=r"^[0-9]+$")]
    question: str
    hint: NotRequired[str | None]
    A: Text
    B: Text
    C: NotRequired[Text | None]
    D: NotRequired[Text | None]
    answer: NotRequired[str | None]
    image: NotRequired[str | None]


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Circular accuracy, by category, and vanilla accuracy; that alone where no row is a copy. Raises InputError."""
    path, rows = _read(annotations)
    without = [key for key, row in rows.items() if _answer(row) not in tuple("ABCD")]
    if without:
        misfit(path, "A, B, C or D as the answer of every row (the test split has none)", without)
    said = read_texts(predictions, list(rows), ("index",), ("prediction",))
    named = {key: inferred(said[key], _options(row), official=official) for key, row in rows.items()}
    copies: dict[int, list[str]] = defaultdict(list)
    for key in rows:
        copies[int(key) % _COPIES].append(key)
    circular = [
        Judged(
            float(all(named[key] == _answer(rows[key]) for key in keys)),
            _groups(rows[keys[0]]),
            all(named[key] for key in keys),
        )
        for keys in copies.values()
    ]
    if len(rows) == len(circular):
        return tally(circular, "vanilla_accuracy")
    found = tally(circular, "circular_accuracy")
    first = [float(named[key] == _answer(row)) for key, row in rows.items() if int(key) < _COPIES]
    return replace(found, metrics={**found.metrics, **({"vanilla_accuracy": mean(first)} if first else {})})


def questions(annotations: Sequence[Path]) -> list[Question]:
    """A question per row, copies too, with the picture's bytes."""
    path, rows = _read(annotations)
    return [
        Question(
            key,
            (_picture(path, rows, key),),
            prompts.choose(row["question"], list(_options(row).values()), row.get("hint") or ""),
            tuple(_options(row).values()),
            "letter",
        )
        for key, row in rows.items()
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """A row of the results table."""
    return {"index": id_of(question), "prediction": text.strip()}


def _options(row: _Row) -> dict[str, str]:
    given = {"A": row["A"], "B": row["B"], "C": row.get("C"), "D": row.get("D")}
    return {letter: text for letter, text in given.items() if text and text.strip() not in ("", "nan")}


def _answer(row: _Row) -> str:
    return (row.get("answer") or "").strip()


def _groups(row: _Row) -> dict[str, str]:
    kinds = {kind: row.get(kind) for kind in _Kinds.__annotations__}
    return {kind: str(name) for kind, name in kinds.items() if name}


def _picture(path: Path, rows: Mapping[str, _Row], key: str) -> bytes:
    column = rows[key].get("image") or ""
    if column in rows:
        column = rows[column].get("image") or ""
    try:
        if len(column) >= _LEAST_BASE64:
            return base64.b64decode(column, validate=True)
    except ValueError:
        pass
    raise InputError(f"annotations {path}: the image of row {key} is no picture in base64, and no row that has one")


def _read(annotations: Sequence[Path]) -> tuple[Path, dict[str, _Row]]:
    path = only_file(annotations, _EXPECTED)
    rows = checked(path, read_rows(path), _FORM, _EXPECTED)
    unique(path, [row["index"] for row in rows])
    return path, {row["index"]: row for row in rows}
