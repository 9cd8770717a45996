"""VQAv2: open questions about photographs, scored by agreement with ten people (Goyal et al. 2017).

Annotations are the official pair, of which scoring needs `annotations` and asking needs `questions`. Results are
[{"question_id", "answer"}]; as in the official script, each question needs one.

`--official`: its code (a013f00) brings answers into normal form only where the ten people differ, so that "The Dog."
is wrong where all ten say "dog" and right where nine do. Its own description says always, and so does this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_json, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.vqa_answer import vqa_accuracy
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_EXPECTED = 'an object with "annotations": [{"question_id", "answers": [{"answer"}]}], or "questions"'


class _Answer(TypedDict):
    answer: Text


class _Annotation(TypedDict):
    question_id: Text
    answers: Annotated[list[_Answer], Field(min_length=1)]
    answer_type: NotRequired[str]
    question_type: NotRequired[str]


class _Asked(TypedDict):
    question_id: Text
    image_id: Text
    question: Text


class _File(TypedDict, total=False):
    annotations: Annotated[list[_Annotation], Field(min_length=1)]
    questions: Annotated[list[_Asked], Field(min_length=1)]


_FORM = TypeAdapter(_File)


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """VQA accuracy, by type of answer and of question. Raises InputError."""
    path, found = _read(annotations, "annotations")
    rows = found["annotations"]
    unique(path, [row["question_id"] for row in rows])
    said = read_texts(predictions, [row["question_id"] for row in rows], ("question_id",))
    return tally([_judged(row, said[row["question_id"]], official) for row in rows], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions; the picture is COCO's, by its number in 12 digits, which older folders put behind a prefix."""
    path, found = _read(annotations, "questions")
    unique(path, [row["question_id"] for row in found["questions"]])
    return [
        Question(row["question_id"], (Path(f"{row['image_id']:0>12}.jpg"),), prompts.short(row["question"]))
        for row in found["questions"]
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results file of the evaluation server."""
    return {"question_id": id_of(question), "answer": text.strip()}


def _judged(row: _Annotation, answer: str, official: bool) -> Judged:
    people = [one["answer"] for one in row["answers"]]
    groups = {"answer_type": row.get("answer_type", ()), "question_type": row.get("question_type", ())}
    return Judged(vqa_accuracy(answer, people, official=official), groups, bool(answer.strip()))


def _read(annotations: Sequence[Path], wanted: str) -> tuple[Path, _File]:
    """The first of the files that has a name, and its path; the others must be of the pair as well."""
    files = {path: checked(path, read_json(path), _FORM, _EXPECTED) for path in files_of(annotations)}
    for path, found in files.items():
        if not found:
            misfit(path, _EXPECTED, read_json(path))
    with_it = [path for path, found in files.items() if wanted in found]
    if not with_it:
        misfit(
            next(iter(files)), f'an object with "{wanted}", in one of the files that are named', "the other of the pair"
        )
    return with_it[0], files[with_it[0]]
