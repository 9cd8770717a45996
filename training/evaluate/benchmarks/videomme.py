"""Video-MME: questions with four options about 900 videos (Fu et al. 2024, arXiv:2405.21075).

Annotations are the Parquet file, or the official template of results. Results are that template, a list of videos with
"questions": [{"question_id", "response"}], or the entries of questions alone. With and without subtitles are two files.

`--official`: its script drops some openings and takes the first of the signs A, B, C, D anywhere, so that "Best option:
C" is B and "Dogs are running" is D; two of its openings lack a comma between them and are never met. Ours takes the
first letter that stands alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from training.evaluate.annotation_files import Row, Text, checked, files_of, misfit, read_json, read_rows, unique
from training.evaluate.answers import answers_of, read_texts, require_same, text_of
from training.evaluate.benchmark import Question
from training.evaluate.measures.option_letters import stated_letters
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LETTERS = "ABCD"
_EXPECTED = "rows with question_id, question, options and answer, or a list of videos with such questions"
_OFFICIAL_OPENINGS = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is" "The correct option is", "Best answer:" "Best option:",
)  # fmt: skip
_FIRST = re.compile(f"[{_LETTERS}]")
_LEADING = re.compile(rf"[({{\[]?([{_LETTERS}])[)}}\].:,]")
_PROMPT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n{}\nThe best answer is:"
)


class _Kinds(TypedDict, total=False):
    duration: str
    domain: str
    sub_category: str
    task_type: str


class _Row(_Kinds):
    question_id: Text
    question: str
    options: list[str]
    answer: str
    video_id: NotRequired[Text]
    videoID: NotRequired[str]


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy over all questions, by length of video, domain and task. Raises InputError."""
    rows = _read(annotations)
    said = _answers(predictions, [row["question_id"] for row in rows])
    return tally([_judged(row, said[row["question_id"]], official) for row in rows], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions in the official words; the video is named by its address's id."""
    return [
        Question(
            row["question_id"],
            (Path(f"{row.get('videoID') or row.get('video_id')}.mp4"),),
            _PROMPT.format("\n".join([row["question"], *row["options"]])),
            tuple(re.sub(r"^[A-D]\.\s*", "", option) for option in row["options"]),
            "letter",
        )
        for row in _read(annotations)
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of a question in the results."""
    return {"question_id": question.id, "response": text.strip()}


def letter_in(text: str, *, official: bool) -> str:
    """The letter that a text names, or ""."""
    text = text.strip()
    if official:
        for opening in _OFFICIAL_OPENINGS:
            text = text.replace(opening, "")
        found = _FIRST.search(text)
        return found[0] if found else ""
    leading = _LEADING.match(text)
    return leading[1] if leading else next(iter(stated_letters(text, _LETTERS)), "")


def _judged(row: _Row, text: str, official: bool) -> Judged:
    letter = letter_in(text, official=official)
    groups = {kind: str(row.get(kind) or "") or () for kind in _Kinds.__annotations__}
    return Judged(float(letter == row["answer"].strip()), groups, bool(letter))


def _read(annotations: Sequence[Path]) -> list[_Row]:
    found: list[_Row] = []
    for path in files_of(annotations):
        rows = checked(path, _flat(path, "annotations"), _FORM, _EXPECTED)
        found += rows
    unique(annotations[0], [row["question_id"] for row in found])
    return found


def _flat(path: Path, what: str) -> list[Row]:
    """Questions, each with what its video has."""
    rows = []
    for video in read_rows(path, what=what):
        inner = video.get("questions", [{}])
        if not isinstance(inner, list) or not all(isinstance(question, dict) for question in inner):
            misfit(path, _EXPECTED, video, what=what)
        rows += [{name: value for name, value in video.items() if name != "questions"} | one for one in inner]
    return rows


def _answers(path: Path, asked: Sequence[str]) -> dict[str, str]:
    """Answers by question; in the template, `answer` is the right one and `response` the model's."""
    said = read_json(path, what="predictions") if path.suffix == ".json" else None
    if not isinstance(said, list) or not any(isinstance(row, dict) and "questions" in row for row in said):
        return read_texts(path, asked, ("question_id",), ("response",))
    found = answers_of(path, _flat(path, "predictions"), ("question_id",), ("response",))
    require_same(path, asked, found)
    return {key: text_of(path, key, answer) for key, answer in found.items()}
