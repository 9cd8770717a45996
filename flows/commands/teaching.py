"""`pairmill evaluate`: from a model to its scores."""

import json
from pathlib import Path
from typing import Any

import click

from flows.commands.verb import verb
from schemas.errors import InputError

_CONFIG = "open_clip_config.json"


@verb()
@click.argument("model", type=click.Path())
@click.option("--folder", type=click.Path(), help="A folder with one sub-folder of pictures per class.")
@click.option("--table", type=click.Path(), help="A CSV with the columns file and label.")
@click.option("--classes", help="A text file with the classes' names, one a line; default: the labels.")
@click.option(
    "--templates", default="a photo of a {}.", show_default=True, help="A sentence with {}, or a file of them."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def evaluate(model: str, device: str, as_json: bool, **asked: Any) -> None:
    """Score a trained model by zero-shot classification of labelled pictures."""
    from schemas.training import ZeroShot
    from training.evaluate.labelled import read_labelled
    from training.evaluate.zeroshot import zeroshot

    if (asked["folder"] is None) == (asked["table"] is None):
        raise click.UsageError("Name the pictures by either --folder or --table.")
    test = read_labelled(ZeroShot(**asked))
    folder = _model_folder(Path(model))
    scores = zeroshot(folder, test.files, test.labels, test.class_names, test.templates, device=device)
    if as_json:
        click.echo(json.dumps({"benchmark": "zeroshot", "metrics": scores}))
        return
    for name, value in scores.items():
        click.echo(f"{name}: {value:.4f}")


def _model_folder(path: Path) -> Path:
    """The folder of a trained model; what `train` writes holds it as `model`. Raises InputError where there is none."""
    for folder in (path, path / "model"):
        if (folder / _CONFIG).is_file():
            return folder
    exists = "holds no trained model" if path.is_dir() else "is no folder"
    raise InputError(f"evaluate: {path}: {exists}; name the folder that `train` made, or its model/ with {_CONFIG}")


VERBS: tuple[Any, ...] = (evaluate,)
