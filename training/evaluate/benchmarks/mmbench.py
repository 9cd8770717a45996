"""MMBench: questions with options, each asked again with the options turned round (Liu et al. 2023, arXiv:2307.06281).

Annotations are the TSV with index, question, hint, A to D, answer, category, l2-category and image; a question's
copies have its index plus a million times their number. Circular: right only where every copy is. Vanilla: the first
alone. Results are a table (TSV, CSV, JSON) with index and prediction, for every row.

`--official`: VLMEvalKit's inference takes the article in "A cat" for the letter A, and finds "cat" in "cattle".
Its judge, a chat model, and its random pick where that fails cannot be repeated: with `--official` as without, an
answer that names no option is wrong.
"""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.evaluate import prompts
from training.evaluate.annotation_files import Row, misfit, need, only_file, read_rows, unique
from training.evaluate.answers import read_texts
from training.evaluate.benchmark import Question, id_of
from training.evaluate.measures.option_letters import inferred
from training.evaluate.tally import Judged, mean, tally
from training.evaluate.zeroshot import Scores

_COPIES = 1_000_000
_KINDS = ("l2-category", "category", "split")
_FORM = "a TSV with index, question, A, B, C, D, answer"
_LEAST_BASE64 = 64  # a shorter text in the column is the index of the row that has the picture


def score(annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
    """Circular accuracy, by category, and vanilla accuracy; that alone where no row is a copy. Raises InputError."""
    rows = _read(annotations, ("answer",))
    said = read_texts(predictions, list(rows), ("index",), ("prediction",))
    named = {key: inferred(said[key], _options(row), official=official) for key, row in rows.items()}
    copies: dict[int, list[str]] = defaultdict(list)
    for key in rows:
        copies[int(key) % _COPIES].append(key)
    circular = [
        Judged(
            float(all(named[key] == rows[key]["answer"].strip() for key in keys)),
            {kind: str(rows[keys[0]][kind]) for kind in _KINDS if rows[keys[0]].get(kind)},
            all(named[key] for key in keys),
        )
        for keys in copies.values()
    ]
    if len(rows) == len(circular):
        return tally(circular, "vanilla_accuracy")
    found = tally(circular, "circular_accuracy")
    first = [float(named[key] == row["answer"].strip()) for key, row in rows.items() if int(key) < _COPIES]
    return replace(found, metrics={**found.metrics, **({"vanilla_accuracy": mean(first)} if first else {})})


def questions(annotations: Sequence[Path]) -> list[Question]:
    """A question per row, copies too, with the picture's bytes."""
    rows = _read(annotations, ("image",))
    return [
        Question(
            key,
            (_picture(rows, row["image"]),),
            prompts.choose(row["question"], list(_options(row).values()), row.get("hint") or ""),
            tuple(_options(row).values()),
            "letter",
        )
        for key, row in rows.items()
    ]


def entry(question: Question, text: str) -> dict[str, Any]:
    """A row of the results table."""
    return {"index": id_of(question), "prediction": text.strip()}


def _options(row: Row) -> dict[str, str]:
    return {letter: row[letter] for letter in "ABCD" if (row.get(letter) or "").strip() not in ("", "nan")}


def _picture(rows: Mapping[str, Row], column: str) -> bytes:
    return base64.b64decode(column if len(column) >= _LEAST_BASE64 else rows[column]["image"])


def _read(annotations: Sequence[Path], more: Sequence[str]) -> dict[str, Row]:
    path = only_file(annotations, _FORM)
    rows = read_rows(path)
    need(path, rows, ("index", "question", "A", "B", *more))
    for row in rows:
        if not str(row["index"]).isdecimal():
            misfit(path, "a whole number as index", row["index"])
        if "answer" in more and (row["answer"] or "").strip() not in tuple("ABCD"):
            misfit(path, f"A, B, C or D as the answer of row {row['index']} (the test split has none)", row["answer"])
    keys = [str(row["index"]) for row in rows]
    unique(path, keys)
    return dict(zip(keys, rows, strict=True))
