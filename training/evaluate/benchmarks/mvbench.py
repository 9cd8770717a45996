"""MVBench: 20 tasks of 200 questions about short videos; the score is the mean of the tasks (Li et al. 2023).

Annotations are the JSON files of the tasks, [{"video", "question", "candidates", "answer"}], each task named by its
file, or one list whose rows have "task_type". Results are {task: [texts in the order of the file]}, or [{"question_id",
"pred"}], where an id is the row's own or `<task>/<row from 0>`.

`--official`: its script asks whether the first word stands within "(a)", so that an empty answer is right. Ours takes
a first word that is the letter, with or without marks.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_json, unique
from training.evaluate.answers import read_answers, require_same, text_of
from training.evaluate.benchmark import Question
from training.evaluate.tally import Judged, mean, tally
from training.evaluate.zeroshot import Scores

_MARKS = "().:,*"
_EXPECTED = 'a list of {"video", "question", "candidates", "answer"}'


class _Row(TypedDict):
    question_id: NotRequired[Text]
    task_type: NotRequired[str]
    video: NotRequired[str]
    start: NotRequired[float]
    end: NotRequired[float]
    question: str
    candidates: list[Text]
    answer: Text


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """The mean of the tasks' accuracies, each task, and `micro_accuracy` over all questions. Raises InputError."""
    rows = _read(annotations)
    said = _answers(predictions, rows)
    judged = [_judged(row, said[row["question_id"]], official) for row in rows]
    found = tally(judged, "accuracy", mean_of="task")
    return replace(found, metrics={**found.metrics, "micro_accuracy": mean([one.score for one in judged])})


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions in the official words."""
    return [
        Question(
            row["question_id"],
            (Path(row.get("video", "")),),
            _prompt(row),
            tuple(row["candidates"]),
            "letter",
            (row["start"], row["end"]) if "start" in row and "end" in row else None,
        )
        for row in _read(annotations)
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results."""
    return {"question_id": question.id, "pred": text.strip()}


def is_right(text: str, letter: str, *, official: bool) -> bool:
    """Whether the first word of an answer is a letter."""
    first = text.lower().split(" ")[0]
    bracketed = f"({letter.lower()})"
    if official:
        return first.replace(".", "") in bracketed or bracketed in first
    return _first_letter(text) == letter


def _first_letter(text: str) -> str:
    """The letter that a text begins with, as "B", "(B)", "B." or "(B)text"; "" where it begins with a word."""
    text = text.strip()
    if text[:1] == "(" and text[2:3] == ")":
        return text[1].upper()
    first = next(iter(text.split()), "").strip(_MARKS).upper()
    return first if len(first) == 1 else ""


def _judged(row: _Row, text: str, official: bool) -> Judged:
    letter = ascii_uppercase[row["candidates"].index(row["answer"])]
    return Judged(
        float(is_right(text, letter, official=official)), {"task": row["task_type"]}, bool(_first_letter(text))
    )


def _prompt(row: _Row) -> str:
    options = prompts.lettered(row["candidates"], "({}) {}")
    return "\n".join([f"Question: {row['question']}", "Options:", *options, "Only give the best option."])


def _read(annotations: Sequence[Path]) -> list[_Row]:
    found: list[_Row] = []
    for path in files_of(annotations):
        places: dict[str, int] = defaultdict(int)
        for row in checked(path, read_json(path), _FORM, _EXPECTED):
            if row["answer"] not in row["candidates"]:
                misfit(path, f"an answer among the candidates {row['candidates']}", row["answer"])
            task = _task(row.get("task_type") or path.stem)
            key = row.get("question_id") or f"{task}/{places[task]}"
            places[task] += 1
            found.append(row | {"task_type": task, "question_id": key})
    unique(annotations[0], [row["question_id"] for row in found])
    return found


def _task(name: str) -> str:
    """A task's name as its file has it: Action Sequence is action_sequence."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _answers(path: Path, rows: Sequence[_Row]) -> dict[str, str]:
    said = read_answers(path, ("question_id",), ("pred",))
    if any(isinstance(answers, list) for answers in said.values()):
        said = {
            f"{_task(task)}/{number}": _pred(answer)
            for task, answers in said.items()
            for number, answer in enumerate(answers if isinstance(answers, list) else [answers])
        }
    require_same(path, [row["question_id"] for row in rows], said)
    return {key: text_of(path, key, answer) for key, answer in said.items()}


def _pred(answer: Any) -> Any:
    """An answer in a task's list, which may be an object of the official notebook."""
    return answer["pred"] if isinstance(answer, dict) and "pred" in answer else answer
