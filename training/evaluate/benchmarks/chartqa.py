"""ChartQA: questions about charts, scored by relaxed accuracy: numbers may be 5 % off (Masry et al. 2022).

Annotations are `test_human.json` and `test_augmented.json`, [{"imgname", "query", "label"}]; the score is the mean of
the two halves, each told by its file's name. The benchmark has no ids: results are [{"imgname", "query", "answer"}], or
a list of answers in the order of the annotations. `--official` changes nothing: years that are 5 % off count there too.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Row, Text, checked, files_of, misfit, read_json, read_rows
from training.evaluate.answers import answer_of, require_same, text_of
from training.evaluate.benchmark import Question
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_TOLERANCE = 0.05
_HALVES = ("human", "augmented")
_EXPECTED = 'a list of {"imgname", "query", "label"}'
_ANSWERS = ("answer", "prediction", "pred", "response", "label")


class _Row(TypedDict):
    imgname: str
    query: Text
    label: Text
    half: NotRequired[str]
    type: NotRequired[str]


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def relaxed(answer: str, right: str) -> bool:
    """Whether numbers are within 5 % of the right one, which is not 0, or else texts the same but for case."""
    said, wanted = _number(answer), _number(right)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= _TOLERANCE
    return answer.lower() == right.lower()


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Relaxed accuracy: the mean of the halves, and each half. Raises InputError."""
    rows = _read(annotations)
    said = _answers(predictions, list(rows))
    judged = [
        Judged(float(relaxed(said[key], row["label"])), {"half": row["half"]}, bool(said[key]))
        for key, row in rows.items()
    ]
    return tally(judged, "relaxed_accuracy", mean_of="half")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions about the pictures in the folder `png` of the data set."""
    return [
        Question(key, (Path(row["imgname"]),), prompts.short(row["query"])) for key, row in _read(annotations).items()
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry by the id that `questions` gives."""
    return {"id": question.id, "answer": text.strip()}


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _read(annotations: Sequence[Path]) -> dict[str, _Row]:
    """Rows by picture and question, numbered where a file asks the same twice; a row may tell its own half."""
    found: dict[str, _Row] = {}
    times: dict[str, int] = defaultdict(int)
    for path in files_of(annotations):
        half = next((half for half in _HALVES if half in path.stem.lower()), "all")
        for row in checked(path, read_rows(path), _FORM, _EXPECTED):
            key = _numbered(f"{row['imgname']}: {row['query']}", times)
            found[key] = row | {"half": row.get("half") or row.get("type") or half}
    return found


def _numbered(key: str, times: dict[str, int]) -> str:
    """A key that was not there before."""
    times[key] += 1
    return key if times[key] == 1 else f"{key} ({times[key]})"


def _answers(path: Path, keys: Sequence[str]) -> dict[str, str]:
    """Answers by key. Raises InputError."""
    said = read_rows(path, what="predictions") if path.suffix != ".json" else read_json(path, what="predictions")
    if not isinstance(said, dict | list):
        misfit(path, 'a list of {"imgname", "query", "answer"}, or of answers', said, what="predictions")
    if isinstance(said, dict):
        found = said
    elif said and all(isinstance(row, dict) and ("query" in row or "id" in row) for row in said):
        found = _by_question(path, said)
    else:
        found = {keys[n] if n < len(keys) else f"row {n}": _answer(path, n, row) for n, row in enumerate(said)}
    require_same(path, keys, found)
    return {key: text_of(path, key, answer).strip() for key, answer in found.items()}


def _answer(path: Path, number: int, row: Any) -> Any:
    return answer_of(path, f"row {number}", row, _ANSWERS) if isinstance(row, dict) else row


def _by_question(path: Path, said: Sequence[Row]) -> dict[str, Any]:
    times: dict[str, int] = defaultdict(int)
    found = {}
    for row in said:
        key = _numbered(str(row["id"]) if "id" in row else f"{row.get('imgname')}: {row['query']}", times)
        found[key] = answer_of(path, key, row, _ANSWERS)
    return found
