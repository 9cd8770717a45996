"""Models that answer in words, for `pairmill evaluate`: where one lies, what it is asked, and where that is noted."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from training.evaluate.asked import Asked

_TOWERS, _WORDS = "open_clip_config.json", "config.json"
Scores = dict[str, dict[str, Any]]


def model_folder(path: Path) -> Path:
    """The folder of a trained model; what `train` writes holds it as `model`. Raises InputError where there is none."""
    for folder in (path, path / "model"):
        if any((folder / name).is_file() for name in (_TOWERS, _WORDS)):
            return folder
    exists = "holds no trained model" if path.is_dir() else "is no folder"
    raise InputError(
        f"evaluate: {path}: {exists}; name the folder that `train` made, or its model/ with {_TOWERS} or {_WORDS}"
    )


def run_folder(path: Path) -> Path:
    """The folder of the training that made a model."""
    return path.parent if model_folder(path) == path else path


def answers_in_words(model: Path) -> bool:
    """Whether it is a generative model, and no pair of towers. Raises InputError where there is none."""
    return not (model_folder(model) / _TOWERS).is_file()


def opened_benchmark(benchmark: str, annotations: Sequence[Path], images: Path | None, limit: int | None) -> "Asked":
    """A benchmark's questions. Raises InputError."""
    from training.evaluate.asked import of_benchmark

    return of_benchmark(benchmark, annotations, images, limit=limit)


def opened_pictures(kind: str, asked: dict[str, Any]) -> "Asked":
    """Pictures to describe or classify that options name. Raises InputError."""
    from pydantic import ValidationError

    from schemas.generative import Questioned
    from training.evaluate.asked import open_asked

    if kind not in ("captions", "zeroshot"):
        raise InputError(f"evaluate: --benchmark {kind}: name its files by --annotations")
    try:
        return open_asked([Questioned.model_validate({kind: asked})])[0]
    except ValidationError as error:
        raise wrong_option(error) from error


def examined(
    model: Path, asked: Sequence["Asked"], device: str, predictions: Path | None = None, *, official: bool = False
) -> Scores:
    """Scores by name; predictions are written where they were asked for, or in the folder of the model's training."""
    from dataclasses import replace

    import torch

    from training.evaluate.noted import note_scores
    from training.evaluate.running import evaluate
    from training.run_folder import EVALUATIONS

    folder = run_folder(model) / EVALUATIONS
    if predictions is not None:
        if predictions.suffix != ".json":
            raise InputError(f"evaluate: --predictions {predictions}: they are written as JSON; name a .json file")
        folder, asked = predictions.parent, [replace(one, name=predictions.stem) for one in asked]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    scores = evaluate(asked, model_folder(model), device, folder, tell=tell, official=official)
    whole = {one.name: scores[one.name] for one in asked if not one.part}
    note_scores(run_folder(model), model_folder(model), whole)
    return scores


def examined_all(model: Path, evaluations: Any, device: str) -> Scores:
    """Scores of all that a specification asks. Raises InputError."""
    from training.evaluate.asked import open_asked

    return examined(model, open_asked(evaluations), device)


def wrong_option(error: "ValidationError") -> InputError:
    """What pydantic found wrong, by the option's name."""
    first = error.errors()[0]
    option = f"--{first['loc'][-1]}: " if len(first["loc"]) > 1 else ""
    return InputError(f"evaluate: {option}{first['msg'].removeprefix('Value error, ')}")
