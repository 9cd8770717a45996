"""MMMU: questions of college exams in 30 subjects (Yue et al. 2023, arXiv:2311.16502).

Annotations are the Parquet files of the subjects: id `validation_<Subject>_<n>`, question with <image n>, options,
answer, question_type. Results are {id: text}, or [{"id", "response"}]. The score is over all questions; subjects apart.

`--official`: where no option can be read from an answer, its script picks one at random (seed 42, in the order of the
annotations here); ours counts it wrong, and unparsed.
"""

import ast
import random
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from training.evaluate import prompts
from training.evaluate.annotation_files import Text, checked, files_of, misfit, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question
from training.evaluate.measures.mmmu_answer import chosen_letter, open_answer_is_right
from training.evaluate.pictures import InParquet
from training.evaluate.tally import Judged, tally
from training.evaluate.zeroshot import Scores

_SEED = 42
_IMAGE = re.compile(r"<image (\d)>")
_MULTIPLE_CHOICE = "multiple-choice"
_EXPECTED = "rows with id (as validation_Art_1), question, options, answer and question_type"


@with_config({"extra": "allow"})  # image_1 to image_7
class _Row(TypedDict):
    id: Annotated[str, Field(pattern=r"^[a-z]+_\w+_\d+$")]
    question: str
    options: str | list[Text]
    answer: Text | list[Text]
    question_type: Literal["multiple-choice", "open"]


_FORM = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Accuracy over all questions, by subject and type of question. Raises InputError."""
    rows = _read(annotations)
    said = read_texts(predictions, [row["id"] for row in rows], ("id",), ("response",))
    picks = random.Random(_SEED) if official else None
    return tally([_judged(row, said[row["id"]], picks) for row in rows], "accuracy")


def questions(annotations: Sequence[Path]) -> list[Question]:
    """Questions with the pictures that they and their options name, in the order in which they are named."""
    found = []
    for row in _read(annotations, pictures=True):
        options = _texts(row["options"])
        named = dict.fromkeys(_IMAGE.findall("\n".join([row["question"], *options])))
        choice = row["question_type"] == _MULTIPLE_CHOICE
        prompt = prompts.choose(row["question"], options) if choice else prompts.short(row["question"])
        held = [row.get(f"image_{n}") for n in named]
        pictures = tuple(picture for picture in held if isinstance(picture, InParquet))
        found.append(Question(row["id"], pictures, prompt, tuple(options), "letter" if choice else "phrase"))
    return found


def entry(question: Question, text: str) -> dict[str, Any]:
    """An entry of the results, of which its script reads the response."""
    return {"id": question.id, "response": text.strip()}


def _judged(row: _Row, text: str, picks: random.Random | None) -> Judged:
    groups = {"subject": row["id"].split("_", 1)[1].rsplit("_", 1)[0], "question_type": row["question_type"]}
    if row["question_type"] != _MULTIPLE_CHOICE:
        return Judged(float(open_answer_is_right(text, _texts(row["answer"]))), groups, bool(text.strip()))
    options = dict(zip(ascii_uppercase, _texts(row["options"]), strict=False))
    letter = chosen_letter(text, options)
    picked = picks.choice(list(options)) if picks is not None and not letter else letter
    return Judged(float(picked == str(row["answer"]).strip()), groups, bool(letter))


def _read(annotations: Sequence[Path], pictures: bool = False) -> list[_Row]:
    found = []
    for path in files_of(annotations):
        rows = checked(path, read_rows(path, pictures=pictures), _FORM, _EXPECTED)
        for row in rows:
            if row["question_type"] == _MULTIPLE_CHOICE and not _texts(row["options"]):
                misfit(path, f"options of {row['id']}", row["options"])
            if row["answer"] == "?":
                misfit(path, f"an answer to {row['id']} (the test split has none)", row["answer"])
        found += rows
    unique(annotations[0], [row["id"] for row in found])
    return found


def _texts(value: Any) -> list[str]:
    """A list, also one that is written as Python writes it; a text alone is a list of one."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return [value]
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
