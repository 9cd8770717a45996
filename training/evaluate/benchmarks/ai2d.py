"""AI2D: questions with options about diagrams of school books (Kembhavi et al. 2016).

Annotations are a table (Parquet, JSON) with question, options and answer, the number of the right option from 0 or its
letter; a question's id is its `question_id` or else its row, from 0. Or they are the official folder `questions`, a
JSON file per diagram, with `ai2d_test_ids.csv` for the test split of 3,088. Results are [{"question_id", "answer"}].
A letter with a period at the start is read, and else the answer must be the letter, whatever its case and marks.
`--official` changes nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase, punctuation
from typing import Any

from training.evaluate import prompts
from training.evaluate.annotation_files import Row, files_of, misfit, need, read_json, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LEADING = re.compile(r"\s*([A-Z])\.")
_IDS = ("question_id", "questionId", "id")


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [row["id"] for row in rows], ("question_id",))
    judged = []
    for row in rows:
        letter = letter_in(said[row["id"]], ascii_uppercase[: len(row["options"])])
        judged.append(Judged(float(letter == ascii_uppercase[row["answer"]]), parsed=bool(letter)))
    return tally(judged, "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions about the diagram in the table, or of the file's name."""
    return [
        Question(
            row["id"], (row["image"],), prompts.choose(row["question"], row["options"]), tuple(row["options"]), "letter"
        )
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


def _read(annotations: Sequence[Path], pictures: bool = False) -> list[Row]:
    files = files_of(annotations)
    tests = [path for path in files if path.suffix == ".csv"]
    found: list[Row] = []
    for path in (path for path in files if path not in tests):
        known = read_json(path) if path.suffix == ".json" else None
        if isinstance(known, dict):
            found += _of_diagram(path, known)
        else:
            found += _of_table(path, pictures)
    if tests:
        kept = {line.strip() for path in tests for line in path.read_text(encoding="utf-8").splitlines()}
        found = [row for row in found if Path(str(row["image"])).stem in kept]
    if not found:
        misfit(files[0], "questions of the test split", [])
    unique(files[0], [row["id"] for row in found])
    return found


def _of_table(path: Path, pictures: bool) -> list[Row]:
    rows = read_rows(path, pictures=pictures)
    need(path, rows, ("question", "options", "answer"))
    found = []
    for number, row in enumerate(rows):
        key = next((str(row[name]) for name in _IDS if row.get(name) is not None), str(number))
        given = str(row["answer"]).strip()
        place = int(given) if given.isdecimal() else ascii_uppercase.find(given) if given else -1
        if not 0 <= place < len(row["options"]):
            misfit(path, f"the number or letter of one of {len(row['options'])} options as answer of {key!r}", given)
        image = row.get("image")
        found.append(
            row | {"id": key, "answer": place, "image": Path(image or "") if isinstance(image, str | None) else image}
        )
    return found


def _of_diagram(path: Path, known: Row) -> list[Row]:
    """Questions of one diagram's official file."""
    asked = known.get("questions")
    if not isinstance(asked, dict):
        misfit(path, 'an object with "imageName" and "questions"', known)
    need(path, list(asked.values()) or [{}], ("questionId", "answerTexts", "correctAnswer"))
    return [
        {
            "id": row["questionId"],
            "question": question,
            "options": row["answerTexts"],
            "answer": row["correctAnswer"],
            "image": Path(known.get("imageName", path.stem)),
        }
        for question, row in asked.items()
    ]
