"""MathVista: mathematics in pictures, scored by equality after extraction (Lu et al. 2023, arXiv:2310.02255).

Annotations are the Parquet file, or `testmini.json`, {pid: {question, choices, unit, precision, answer, question_type,
answer_type, metadata}}. Results are {pid: {"extraction" or "response"}}, or {pid: text}; an extraction that is there,
such as a chat model made, counts. A choice is taken by its letter, or as the text nearest by edits; numbers are rounded
to the question's precision, and must be equal as texts.

`--official`: its script has a chat model extract what its rules do not; without one, ours takes what stands after "the
answer is" or "answer:", and of a text with one number that number. Its script takes the shortest choice for an answer
of nothing; ours is wrong, and unparsed. `--official` applies the script's rules alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, misfit, only_file, read_json, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question
from training.evaluate.measures.edit_distance import edit_distance
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_EXPECTED = "a Parquet file, or an object of pid and {question, choices, precision, answer, question_type, answer_type}"
_QUOTED = re.compile(r'The answer is "(.*)"\.')
_STATED = re.compile(r"(?:answer is|answer:)\s*:?\s*(.+?)\.?\s*$", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.,-])[-+]?(?:\d+\.?\d*|\.\d+)(?![\d,]*\d)")
_LETTER = re.compile(r"\(([a-zA-Z])\)")


class _Metadata(TypedDict, total=False):
    task: str | None
    category: str | None
    context: str | None
    grade: str | None
    skills: list[str] | None
    source: str | None


class _Row(TypedDict):
    pid: Text
    question: str
    query: NotRequired[str | None]
    image: NotRequired[Any]
    decoded_image: NotRequired[Any]
    choices: list[Text] | None
    unit: NotRequired[str | None]
    precision: float | None
    answer: Text | None
    question_type: str
    answer_type: str
    metadata: NotRequired[_Metadata | None]


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy, by type of question and answer, and what the metadata tells. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [row["pid"] for row in rows], ("pid",), ("extraction", "response"))
    return tally([_judged(row, said[row["pid"]], official) for row in rows], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions in the words of the file's `query`, which hold a hint and the choices, where it has them."""
    return [
        Question(
            row["pid"],
            (row["decoded_image"] if row.get("decoded_image") is not None else Path(str(row.get("image") or "")),),
            row.get("query") or _prompt(row),
            tuple(row["choices"] or ()),
            "phrase",
        )
        for row in _read(annotations, pictures=True)
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results."""
    return {"pid": question.id, "response": text.strip()}


def extracted(text: str, row: _Row, *, official: bool) -> str:
    """What a text answers, by rules. A text that is an answer already is taken whole."""
    choices = row["choices"] or ()
    numeric = not choices and row["answer_type"] in ("integer", "float")
    if text in choices or (numeric and _normal(text, row) is not None):
        return text
    quoted = _QUOTED.search(text)
    if quoted or official:
        return quoted[1] if quoted else text
    stated = _STATED.search(text)
    text = stated[1].strip() if stated else text
    numbers = _NUMBER.findall(text) if numeric else []
    return numbers[0] if len(numbers) == 1 else text


def _judged(row: _Row, text: str, official: bool) -> Judged:
    found = extracted(text.strip(), row, official=official)
    normal = _normal(found, row) if found or official else None
    metadata = row.get("metadata") or {}
    kinds = {kind: metadata.get(kind) or () for kind in _Metadata.__annotations__}
    groups: dict[str, Any] = {"question_type": row["question_type"], "answer_type": row["answer_type"], **kinds}
    return Judged(float(normal == row["answer"]), groups, normal is not None)


def _normal(text: str, row: _Row) -> str | None:
    """An answer as its right form would be written; None where it has none."""
    if row["choices"]:
        return _choice(text.strip(), row["choices"])
    try:
        if row["answer_type"] == "integer":
            return str(int(float(text)))
        if row["answer_type"] == "float":
            return str(round(float(text), int(row["precision"] or 0)))
    except (ValueError, OverflowError):
        return None
    return text


def _choice(text: str, choices: Sequence[str]) -> str:
    """The choice of a letter in brackets or alone, or else the nearest by edits; of equal ones the first."""
    bracketed = _LETTER.search(text)
    letter = bracketed[1].upper() if bracketed else text
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    if 0 <= place < len(choices):
        return choices[place]
    return min(choices, key=lambda choice: edit_distance(letter, choice))


def _prompt(row: _Row) -> str:
    if row["choices"]:
        return prompts.choose(row["question"], row["choices"])
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    return prompts.short(f"{row['question']}{unit}")


def _read(annotations: Sequence[Path], pictures: bool = False) -> list[_Row]:
    path = only_file(annotations, _EXPECTED)
    known = read_json(path) if path.suffix == ".json" else read_rows(path, pictures=pictures)
    if isinstance(known, dict):
        known = [{"pid": pid} | row if isinstance(row, dict) else row for pid, row in known.items()]
    rows = checked(path, known, _FORM, _EXPECTED)
    unique(path, [row["pid"] for row in rows])
    without = [row["pid"] for row in rows if not row["answer"]]
    if without:
        misfit(path, "an answer to every problem (the test split has none)", without)
    return rows
