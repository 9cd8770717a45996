"""VQAv2: open questions about photographs, scored by agreement with ten people (Goyal et al. 2017).

Annotations are the official pair, of which scoring needs `annotations` and asking needs `questions`. Results are
[{"question_id", "answer"}]; as in the official script, each question needs one.

`--official`: its code (a013f00) brings answers into normal form only where the ten people differ, so that "The Dog."
is wrong where all ten say "dog" and right where nine do. Its own description says always, and so does this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluate import prompts
from training.evaluate.annotation_files import Row, files_of, misfit, need, read_json, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.vqa_answer import vqa_accuracy
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_KINDS = ("answer_type", "question_type")
_COLUMNS = {"annotations": ("question_id", "answers"), "questions": ("question_id", "image_id", "question")}


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """VQA accuracy, by type of answer and of question. Raises InputError."""
    rows = _read(annotations, "annotations")
    said = read_texts(predictions, [str(row["question_id"]) for row in rows], ("question_id",))
    return tally([_judged(row, said[str(row["question_id"])], official) for row in rows], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions; the picture is COCO's, by its number in 12 digits, which older folders put behind a prefix."""
    return [
        Question(str(row["question_id"]), (Path(f"{row['image_id']:0>12}.jpg"),), prompts.short(row["question"]))
        for row in _read(annotations, "questions")
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results file of the evaluation server."""
    return {"question_id": id_of(question), "answer": text.strip()}


def _judged(row: Row, answer: str, official: bool) -> Judged:
    people = [str(one["answer"]) for one in row["answers"]]
    groups = {kind: str(row[kind]) for kind in _KINDS if kind in row}
    return Judged(vqa_accuracy(answer, people, official=official), groups, bool(answer.strip()))


def _read(annotations: Sequence[Path], wanted: str) -> list[Row]:
    """The rows under a name, from the first of the files that has it; the others must be the other of the pair."""
    found: list[Row] | None = None
    for path in files_of(annotations):
        known = read_json(path)
        if not isinstance(known, dict) or not (known.keys() & _COLUMNS.keys()):
            misfit(path, 'an object with "annotations": [{"question_id", "answers"}], or "questions"', known)
        if wanted in known and found is None:
            found = known[wanted]
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                misfit(path, f'a list of objects as "{wanted}"', found)
            need(path, found, _COLUMNS[wanted])
            unique(path, [str(row["question_id"]) for row in found])
            _require_answers(path, found)
    if found is None:
        misfit(annotations[0], f'an object with "{wanted}", in one of the files that are named', known)
    return found


def _require_answers(path: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        given = row.get("answers", [{"answer": ""}])
        if not given or not all(isinstance(one, dict) and "answer" in one for one in given):
            misfit(path, f'"answers": [{{"answer"}}, …] of question {row["question_id"]}', given)
