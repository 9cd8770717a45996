"""All evaluations of a specification: opened before anything is written, run on a model whenever scores are wanted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError
from schemas.training import Evaluation
from training.evaluate.labelled import read_labelled
from training.evaluate.linear_probe import probe_scores, read_probe
from training.evaluate.own_command import OwnCommand
from training.evaluate.retrieval import read_captioned, retrieval_scores
from training.evaluate.zeroshot import Scores, zeroshot_scores

if TYPE_CHECKING:
    from training.model import Model


@dataclass(frozen=True)
class Test:
    """One evaluation, ready: its name, its kind, and what gives the scores of a model and its folder."""

    name: str
    kind: str
    scores: Callable[["Model", Path], Scores]


def open_tests(asked: Sequence[Evaluation]) -> list[Test]:
    """The evaluations, with labels and captions read. Raises InputError."""
    names = [evaluation.label for evaluation in asked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"evaluate: two evaluations are called {twice[0]!r}; give each a `name` of its own")
    return [Test(evaluation.label, evaluation.kind, _opened(evaluation)) for evaluation in asked]


def evaluate(
    tests: Sequence[Test], model_folder: Path, device: str, *, tell: Callable[[str], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Scores of a saved model by the tests' names: metrics, and `per_class` for classifications.

    `tell` hears the name of each test before it runs. Raises InputError where the model or a picture cannot be read,
    RunError where a command of the user's fails.
    """
    from training.model import load_model

    return evaluate_model(tests, load_model(model_folder, device), model_folder, tell=tell) if tests else {}


def evaluate_model(
    tests: Sequence[Test], model: "Model", folder: Path, *, tell: Callable[[str], None] | None = None
) -> dict[str, dict[str, Any]]:
    """As `evaluate`, of a model in memory, which goes on training afterwards; commands are told the folder."""
    training = model.network.training
    found = {}
    try:
        for test in tests:
            if tell is not None:
                tell(test.name)
            found[test.name] = test.scores(model, folder).record()
    finally:
        model.network.train(training)
    return found


def table(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(evaluation, metric, value) of scores, for people."""
    return [
        (name, metric, _shown(metric, value))
        for name, record in scores.items()
        for metric, value in record.items()
        if not metric.startswith("per_")
    ]


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if metric == "l2" else f"{value:.4f}"


def _opened(asked: Evaluation) -> Callable[["Model", Path], Scores]:
    if asked.zeroshot is not None:
        labelled = read_labelled(asked.zeroshot)
        given = labelled.files, labelled.labels, labelled.class_names, labelled.templates
        return lambda model, _: zeroshot_scores(model, *given)
    if asked.retrieval is not None:
        captioned = read_captioned(asked.retrieval)
        return lambda model, _: retrieval_scores(model, captioned)
    if asked.linear_probe is not None:
        probe = read_probe(asked.linear_probe)
        return lambda model, _: probe_scores(model, probe)
    own = OwnCommand(str(asked.command), Path(str(asked.results)))
    return lambda _, folder: own.scores(folder)
