"""AI2D: questions with options about diagrams of school books (Kembhavi et al. 2016).

Annotations are a table (Parquet, JSON) with question, options and answer, the number of the right option from 0 or its
letter; a question's id is its `question_id` or else its row, from 0. Or they are the official folder `questions`, a
JSON file per diagram, with `ai2d_test_ids.csv` for the test split of 3,088. Results are [{"question_id", "answer"}].
A letter with a period at the start is read, and else the answer must be the letter, whatever its case and marks.
`--official` changes nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase, punctuation
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_json, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question
from training.evaluate.pictures import InParquet
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LEADING = re.compile(r"\s*([A-Z])\.")


class _TableRow(TypedDict):
    question_id: NotRequired[Text | None]
    question: str
    options: list[Text]
    answer: Text
    image: NotRequired[Any]


class _OfDiagram(TypedDict):
    questionId: Text
    answerTexts: list[Text]
    correctAnswer: int


class _Diagram(TypedDict):
    imageName: NotRequired[str]
    questions: dict[str, _OfDiagram]


@dataclass(frozen=True)
class _Asked:
    id: str
    question: str
    options: list[str]
    answer: int
    image: Path | InParquet


_TABLE, _DIAGRAM = TypeAdapter(Annotated[list[_TableRow], Field(min_length=1)]), TypeAdapter(_Diagram)


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [row.id for row in rows], ("question_id",))
    judged = []
    for row in rows:
        letter = letter_in(said[row.id], ascii_uppercase[: len(row.options)])
        judged.append(Judged(float(letter == ascii_uppercase[row.answer]), parsed=bool(letter)))
    return tally(judged, "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions about the diagram in the table, or of the file's name."""
    return [
        Question(row.id, (row.image,), prompts.choose(row.question, row.options), tuple(row.options), "letter")
        for row in _read(annotations, pictures=True)
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results."""
    return {"question_id": question.id, "answer": text.strip()}


def letter_in(text: str, letters: str) -> str:
    """The letter that a text begins with or is, or ""."""
    leading = _LEADING.match(text)
    found = leading[1] if leading else text.strip().strip(punctuation).upper()
    return found if len(found) == 1 and found in letters else ""


def _read(annotations: Sequence[Path], pictures: bool = False) -> list[_Asked]:
    files = files_of(annotations)
    tests = [path for path in files if path.suffix == ".csv"]
    found: list[_Asked] = []
    for path in (path for path in files if path not in tests):
        known = read_json(path) if path.suffix == ".json" else None
        asked = _of_diagram(path, known) if isinstance(known, dict) else _of_table(path, pictures)
        without = [row.id for row in asked if not 0 <= row.answer < len(row.options)]
        if without:
            misfit(path, "the number or letter of one of its options as answer of every question", without)
        found += asked
    if tests:
        kept = {line.strip() for path in tests for line in path.read_text(encoding="utf-8").splitlines()}
        found = [row for row in found if isinstance(row.image, Path) and row.image.stem in kept]
    if not found:
        misfit(files[0], "questions of the test split", [])
    unique(files[0], [row.id for row in found])
    return found


def _of_table(path: Path, pictures: bool) -> list[_Asked]:
    rows = checked(path, read_rows(path, pictures=pictures), _TABLE, "rows with question, options and answer")
    found = []
    for number, row in enumerate(rows):
        given, image = row["answer"].strip(), row.get("image")
        answer = int(given) if given.isdecimal() else ascii_uppercase.find(given or "?")
        place = image if isinstance(image, InParquet) else Path(str(image or ""))
        found.append(_Asked(row.get("question_id") or str(number), row["question"], row["options"], answer, place))
    return found


def _of_diagram(path: Path, known: Any) -> list[_Asked]:
    """Questions of one diagram's official file."""
    found = checked(path, known, _DIAGRAM, 'an object with "imageName" and "questions"')
    image = Path(found.get("imageName", path.stem))
    return [
        _Asked(row["questionId"], question, row["answerTexts"], row["correctAnswer"], image)
        for question, row in found["questions"].items()
    ]
