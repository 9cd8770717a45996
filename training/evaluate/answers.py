"""Reads predictions files: what somebody's model answered to each question of a benchmark, and to no other."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from training.evaluate.annotation_files import misfit, read_json, read_rows, some, unique

_TABLES = (".jsonl", ".tsv", ".csv")
_SHEETS = (".xlsx", ".xls")  # as MMBench's server takes them
_IDS = ("question_id", "id")
_ANSWERS = ("answer", "prediction", "pred", "response", "text")


def read_answers(
    path: Path, ids: Sequence[str] = (), answers: Sequence[str] = (), *, within: str = ""
) -> dict[str, Any]:
    """Answers by the ids of questions, in the order of the file.

    A file is an object of ids and answers, or a list of objects (JSON, JSON lines, TSV, CSV). `ids` and `answers` are
    what the benchmark calls the two; other usual names are taken where those are missing. The whole may lie `within` a
    name of an object. Raises InputError.
    """
    names, fields = [*ids, *(one for one in _IDS if one not in ids)], [*answers, *_ANSWERS]
    if path.suffix in _SHEETS:
        raise InputError(f"predictions {path}: is a spreadsheet, which is not read; save it as TSV or CSV")
    if path.suffix in _TABLES:
        return answers_of(path, read_rows(path, what="predictions"), names, fields)
    said = read_json(path, what="predictions", each_name_once=True)
    if isinstance(said, dict) and isinstance(said.get(within), dict | list):
        said = said[within]
    if isinstance(said, dict):
        return {key: _of_object(path, key, value, fields) for key, value in said.items()}
    if not isinstance(said, list) or not all(isinstance(row, dict) for row in said):
        misfit(path, f"a list of objects with {names[0]} and {fields[0]}, or an object of ids and answers", said,
               what="predictions")  # fmt: skip
    return answers_of(path, said, names, fields)


def answers_of(
    path: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], fields: Sequence[str]
) -> dict[str, Any]:
    """Answers of rows, by the first of `names` and of `fields` that each has. Raises InputError."""
    if not rows:
        raise InputError(f"predictions {path}: are empty; expected are objects with {names[0]} and {fields[0]}")
    keys = []
    for number, row in enumerate(rows):
        name = next((name for name in names if name in row), None)
        if name is None:
            raise InputError(f"predictions {path}: entry {number:,} has no {names[0]}; it has {some([*map(str, row)])}")
        keys.append(str(row[name]))
    unique(path, keys, what="predictions")
    return {key: answer_of(path, key, row, fields) for key, row in zip(keys, rows, strict=True)}


def answer_of(path: Path, key: str, row: dict[str, Any], fields: Sequence[str]) -> Any:
    """The answer in an entry. Raises InputError where it has none."""
    name = next((name for name in fields if name in row), None)
    if name is None:
        raise InputError(
            f"predictions {path}: the entry of {key!r} has no {fields[0]}; it has {some([*map(str, row)])}"
        )
    return row[name]


def text_of(path: Path, key: str, answer: Any) -> str:
    """An answer as text: numbers as they are written, nothing as no text. Raises InputError for lists and objects."""
    if isinstance(answer, dict | list):
        raise InputError(f"predictions {path}: the answer to {key!r} is {answer!r:.60}; it must be text")
    return "" if answer is None else str(answer)


def read_texts(
    path: Path, asked: Collection[str], ids: Sequence[str] = (), answers: Sequence[str] = ()
) -> dict[str, str]:
    """As `read_answers`, as texts, and for exactly those questions that are asked. Raises InputError."""
    found = read_answers(path, ids, answers)
    require_same(path, asked, found)
    return {key: text_of(path, key, answer) for key, answer in found.items()}


def require_same(path: Path, asked: Collection[str], found: Collection[str]) -> None:
    """Raise InputError where a question has no answer, or an answer no question.

    A mean over fewer questions is another number, so nothing is left out silently, whatever a script elsewhere does.
    """
    there, wanted = set(found), set(asked)
    missing, strange = [key for key in asked if key not in there], [key for key in found if key not in wanted]
    if missing or strange:
        which = [f"no prediction of {some(missing)}"] if missing else []
        which += [f"a prediction of {some(strange)}, which is not asked"] if strange else []
        raise InputError(
            f"predictions {path}: have {' and '.join(which)} ({len(missing):,} of {len(wanted):,} missing, "
            f"{len(strange):,} not asked for)"
        )


def _of_object(path: Path, key: str, value: Any, fields: Sequence[str]) -> Any:
    return answer_of(path, key, value, fields) if isinstance(value, dict) else value
