"""`pairmill train` and `evaluate`: from a manifest to a model, and to its scores."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flows.commands.verb import set_option, spec_argument, verb
from schemas.errors import InputError

_CONFIG = "open_clip_config.json"
_LINE_EVERY_S = 5.0


@verb()
@spec_argument
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def train(spec: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train a model as a training specification says, from its last checkpoint if there is one."""
    from schemas.reading import read_yaml
    from schemas.training import TrainingSpec
    from training.contrastive import train_contrastive

    read = read_yaml(spec, TrainingSpec, overrides=overrides).spec
    done = train_contrastive(read, progress=progress_lines(read.name))
    if as_json:
        click.echo(json.dumps({"model": str(done.model_folder), "metrics": done.metrics}))
        return
    for name, value in done.metrics.items():
        click.echo(f"{name}: {value}")
    click.echo(f"model: {done.model_folder}")


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


def progress_lines(name: str) -> Callable[[int, int, float, float], None]:
    """What tells of a training's steps on standard error: in place on a terminal, else a line every few seconds."""
    last = 0.0

    def tell(step: int, steps: int, loss: float, samples_per_s: float) -> None:
        nonlocal last
        terminal = sys.stderr.isatty()
        if step < steps and time.monotonic() - last < (0.2 if terminal else _LINE_EVERY_S):
            return
        last = time.monotonic()
        line = f"{name}: step {step:,} of {steps:,}, loss {loss:.3f}, {samples_per_s:,.0f} samples/s"
        end = "" if terminal and step < steps else "\n"
        print(f"\r{line}\x1b[K" if terminal else line, end=end, file=sys.stderr, flush=True)

    return tell


VERBS: tuple[Any, ...] = (train, evaluate)
