"""ANLS: how near an answer is to the nearest right one, letter by letter (Biten et al. 2019, arXiv:1905.13648).

One minus the edit distance over the longer length, the best of the right answers, and 0 below one half. The paper
gives 0 at exactly one half as well; the script of the challenge (rrc.cvc.uab.es), which made every published number,
keeps it, and takes lengths before spaces are collapsed, so this does too: `--official` changes nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, misfit, only_file, read_json, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.edit_distance import edit_distance
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LEAST = 0.5
_EXPECTED = 'an object with "data": [{"questionId", "question", "image", "answers"}]'
_Kinds = TypedDict(
    "_Kinds",
    {
        "question_types": NotRequired[list[str] | None],
        "answer_type": NotRequired[list[str] | None],
        "evidence": NotRequired[list[str] | None],
        "operation/reasoning": NotRequired[list[str] | None],
    },
)


class _Row(_Kinds):
    questionId: Text
    question: Text
    image: NotRequired[str]  # DocVQA
    image_local_name: NotRequired[str]  # InfographicVQA
    answers: NotRequired[Annotated[list[Text], Field(min_length=1)]]


class _File(TypedDict):
    data: Annotated[list[_Row], Field(min_length=1)]


_FORM = TypeAdapter(_File)


def anls(answer: str, right: Sequence[str]) -> float:
    """The score of an answer, from 0 to 1, `right` holding at least one right one."""
    score = 1 - min(_distance(answer, one) for one in right)
    return score if score >= _LEAST else 0.0


def score_documents(annotations: Sequence[Path], predictions: Path) -> Scores:
    """Mean ANLS of DocVQA's and InfographicVQA's files. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [row["questionId"] for row in rows], ("questionId",))
    return tally([_judged(row, said[row["questionId"]]) for row in rows], "anls")


def document_questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions with the path of the page's picture as the file says it. Raises InputError."""
    return [
        Question(row["questionId"], (Path(_picture(row)),), prompts.short(row["question"]))
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


def _judged(row: _Row, answer: str) -> Judged:
    groups = {kind: row[kind] or () for kind in _Kinds.__annotations__ if kind in row}  # type: ignore[literal-required]
    return Judged(anls(answer, row["answers"]), groups, bool(answer.strip()))


def _read(annotations: Sequence[Path], answers: bool = True) -> list[_Row]:
    path = only_file(annotations, _EXPECTED)
    rows = checked(path, read_json(path), _FORM, _EXPECTED)["data"]
    unique(path, [row["questionId"] for row in rows])
    without = [row["questionId"] for row in rows if answers and "answers" not in row]
    if without:
        misfit(path, "answers to every question (the test split has none)", without)
    return rows


def _picture(row: _Row) -> str:
    return row.get("image") or row.get("image_local_name") or ""
