"""`pairmill train`: from a manifest to a model."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from flows.commands.verb import set_option, spec_argument, verb

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
    from training.evaluate.suite import table

    read = read_yaml(spec, TrainingSpec, overrides=overrides).spec
    done = train_contrastive(read, progress=progress_lines(read.name))
    if as_json:
        click.echo(json.dumps({"model": str(done.model_folder), "metrics": done.metrics}))
        return
    for name, value in done.metrics.items():
        if not isinstance(value, dict):
            click.echo(f"{name}: {value}")
    for row in table({name: value for name, value in done.metrics.items() if isinstance(value, dict)}):
        click.echo("{} {}: {}".format(*row))
    click.echo(f"model: {done.model_folder}")


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


VERBS: tuple[Any, ...] = (train,)
