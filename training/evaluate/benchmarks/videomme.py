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
from typing import Any

from training.evaluate.annotation_files import Row, files_of, misfit, need, read_json, read_rows, unique
from training.evaluate.answers import answers_of, read_texts, require_same, text_of
from training.evaluate.benchmark import Question
from training.evaluate.measures.option_letters import stated_letters
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_LETTERS = "ABCD"
_KINDS = ("duration", "domain", "sub_category", "task_type")
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


def _judged(row: Row, text: str, official: bool) -> Judged:
    letter = letter_in(text, official=official)
    groups = {kind: str(row[kind]) for kind in _KINDS if row.get(kind)}
    return Judged(float(letter == str(row["answer"]).strip()), groups, bool(letter))


def _read(annotations: Sequence[Path]) -> list[Row]:
    found = []
    for path in files_of(annotations):
        rows = _flat(read_json(path)) if path.suffix == ".json" else read_rows(path)
        if rows is None:
            misfit(path, "a Parquet file, or a list of videos with their questions", read_json(path))
        need(path, rows, ("question_id", "question", "options", "answer"))
        found += [row | {"question_id": str(row["question_id"]), "options": list(row["options"])} for row in rows]
    unique(annotations[0], [row["question_id"] for row in found])
    return found


def _flat(known: Any) -> list[Row] | None:
    """Questions, each with what its video has; None where a file holds something else."""
    if not isinstance(known, list) or not all(isinstance(row, dict) for row in known):
        return None
    return [
        {name: value for name, value in video.items() if name != "questions"} | question
        for video in known
        for question in video.get("questions", [{}])
    ]


def _answers(path: Path, asked: Sequence[str]) -> dict[str, str]:
    """Answers by question; in the template, `answer` is the right one and `response` the model's."""
    said = read_json(path, what="predictions") if path.suffix == ".json" else None
    nested = isinstance(said, list) and any(isinstance(row, dict) and "questions" in row for row in said)
    if not nested:
        return read_texts(path, asked, ("question_id",), ("response",))
    rows = _flat(said)
    if rows is None:
        misfit(path, "a list of videos with their questions", said, what="predictions")
    found = answers_of(path, rows, ("question_id",), ("response",))
    require_same(path, asked, found)
    return {key: text_of(path, key, answer) for key, answer in found.items()}
