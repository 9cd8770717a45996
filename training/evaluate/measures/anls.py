"""ANLS: how near an answer is to the nearest right one, letter by letter (Biten et al. 2019, arXiv:1905.13648).

One minus the edit distance over the longer length, the best of the right answers, and 0 below one half. The paper
gives 0 at exactly one half as well; the script of the challenge (rrc.cvc.uab.es), which made every published number,
keeps it, and takes lengths before spaces are collapsed, so this does too: `--official` changes nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluate import prompts
from training.evaluate.annotation_files import Row, misfit, need, only_file, read_json, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.edit_distance import edit_distance
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LEAST = 0.5
_FORM = 'an object with "data": [{"questionId", "question", "image", "answers"}]'
_KINDS = ("question_types", "answer_type", "evidence", "operation/reasoning")


def anls(answer: str, right: Sequence[str]) -> float:
    """The score of an answer, from 0 to 1, `right` holding at least one right one."""
    score = 1 - min(_distance(answer, one) for one in right)
    return score if score >= _LEAST else 0.0


def score_documents(annotations: Sequence[Path], predictions: Path) -> Scores:
    """Mean ANLS of DocVQA's and InfographicVQA's files. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [str(row["questionId"]) for row in rows], ("questionId",))
    return tally([_judged(row, said[str(row["questionId"])]) for row in rows], "anls")


def document_questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions with the path of the page's picture as the file says it. Raises InputError."""
    return [
        Question(str(row["questionId"]), (Path(_picture(row)),), prompts.short(row["question"]))
        for row in _read(annotations, answers=False)
    ]


def document_entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the challenge's results file."""
    return {"questionId": id_of(question), "answer": text.strip()}


def _distance(answer: str, right: str) -> float:
    """Edit distance over the longer length, and 1 where more than half must differ."""
    longer = max(len(answer), len(right))
    a, b = (" ".join(text.lower().split()) for text in (answer, right))
    if not longer:
        return 0.0
    if abs(len(a) - len(b)) > math.ceil(longer * (1 - _LEAST)):
        return 1.0  # spares the work for answers that are pages long
    return edit_distance(a, b) / longer


def _judged(row: Row, answer: str) -> Judged:
    groups = {kind: [str(one) for one in row[kind]] for kind in _KINDS if isinstance(row.get(kind), list)}
    return Judged(anls(answer, [str(one) for one in row["answers"]]), groups, bool(answer.strip()))


def _read(annotations: Sequence[Path], answers: bool = True) -> list[Row]:
    path = only_file(annotations, _FORM)
    known = read_json(path)
    rows = known.get("data") if isinstance(known, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        misfit(path, _FORM, known)
    need(path, rows, ("questionId", "answers") if answers else ("questionId", "question"))
    unique(path, [str(row["questionId"]) for row in rows])
    without = [row for row in rows if answers and not (isinstance(row["answers"], list) and row["answers"])]
    if without:
        misfit(path, "a list of right answers to each question", without[0])
    return rows


def _picture(row: Row) -> str:
    return str(row.get("image") or row.get("image_local_name") or "")
