"""What a benchmark is: a file in `benchmarks/`, which scores a predictions file, and asks a model its questions.

The name of the file is the name of the benchmark; there is no other registration.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from schemas.errors import InputError
from schemas.nearest import unknown_name
from training.evaluate import benchmarks
from training.evaluate.pictures import Picture
from training.evaluate.zeroshot import Scores

Length = Literal["letter", "phrase", "box", "sentence", "paragraph"]
"""How long an answer is: what a runner takes the most tokens that it generates from."""


@dataclass(frozen=True)
class Question:
    """What a model is asked: pictures, words, and how long an answer should be.

    `pictures` are stored bytes, places in a Parquet file, or paths relative to the folder that the benchmark's
    pictures (or videos, of which a runner takes frames) lie in. `options` are texts without letters; `clip_s` is the
    part of a video that is asked about, from second to second.
    """

    id: str
    pictures: tuple[Picture, ...]
    prompt: str
    options: tuple[str, ...] = ()
    length: Length = "phrase"
    clip_s: tuple[float, float] | None = None


class Benchmark(Protocol):
    """What each module in `benchmarks/` offers; those that score rankings of vectors ask no questions."""

    def score(self, annotations: Sequence[Path], predictions: Path, *, official: bool = False) -> Scores:
        """Scores of a predictions file. Raises InputError where a file cannot be read or does not fit the others."""
        ...

    def questions(self, annotations: Sequence[Path]) -> list[Question]:
        """Every question, in the order of the files. Raises InputError."""
        ...

    def entry(self, question: Question, text: str) -> dict[str, Any]:
        """What a predictions file, which is a JSON list of these, says of a question: the raw text of a model."""
        ...


def id_of(question: Question) -> int | str:
    """The id as results files have it: a number where it is written as one."""
    number = question.id.isdecimal() and str(int(question.id)) == question.id
    return int(question.id) if number else question.id


def benchmark_names() -> list[str]:
    """The names of all benchmarks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of a name. Raises InputError, which suggests the nearest one, where there is none."""
    if name not in benchmark_names():
        raise InputError(f"evaluate: benchmark: {unknown_name(name, benchmark_names(), 'there are')}")
    return cast(Benchmark, importlib.import_module(f"{benchmarks.__name__}.{name}"))


def score_predictions(
    benchmark: str, annotations: Sequence[Path], predictions: Path, *, official: bool = False
) -> Scores:
    """Scores of predictions that somebody else made, without a model. Raises InputError."""
    return load_benchmark(benchmark).score(annotations, predictions, official=official)
