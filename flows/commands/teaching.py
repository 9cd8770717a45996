"""`pairmill train`: from a manifest to a model."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from flows.commands.verb import set_option, spec_argument, verb

if TYPE_CHECKING:
    from schemas.any_training import AnyTraining
    from training.run_folder import TrainResult

Progress = Callable[[int, int, float, float], None]
Tell = Callable[[str], None]
_LINE_EVERY_S, _REDRAW_EVERY_S = 5.0, 0.2


@verb()
@spec_argument
@set_option
@click.option(
    "--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Processes (ranks) on this machine."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
@click.pass_context
def train(ctx: click.Context, /, spec: str, overrides: tuple[str, ...], nproc: int, as_json: bool) -> None:
    """Train a model as a training specification says, from its last checkpoint if there is one."""
    from schemas.any_training import read_training
    from training.launch import launch, noted

    read = read_training(spec, overrides)
    if nproc > 1 and "RANK" not in os.environ:
        debug = ["--debug"] if ctx.find_root().obj["debug"] else []
        changes = [f"--set={change}" for change in overrides]
        as_asked = [*changes, *(["--json"] if as_json else []), *debug]
        launch(nproc, [sys.executable, "-m", "flows.command_line", "train", spec, *as_asked])
        return

    done = noted(lambda: _trained(read, spec, overrides))
    if int(os.environ.get("RANK", 0)):
        return
    if as_json:
        click.echo(json.dumps({"model": str(done.model_folder), "metrics": done.metrics}))
        return
    from training.evaluate.suite import table

    for name, value in done.metrics.items():
        if not isinstance(value, dict):
            click.echo(f"{name}: {value}")
    for row in table({name: value for name, value in done.metrics.items() if isinstance(value, dict)}):
        click.echo("{} {}: {}".format(*row))
    click.echo(f"model: {done.model_folder}")


def _trained(read: "AnyTraining", spec: str, overrides: tuple[str, ...]) -> "TrainResult":
    """Train, as a Prefect flow run where a server was configured or runs in the background."""
    from flows.one_run import warn_on_stderr
    from flows.prefect_server import answers, configured_url
    from training.train import train as train_by

    step = progress_lines(read.name)
    url = None if int(os.environ.get("RANK", 0)) else configured_url()
    if url is None or not answers(url):
        if url is not None:
            warn_on_stderr(f"the Prefect server {url} cannot be reached; the training goes on without it")
        return train_by(read, progress=step, tell=_say)
    from flows.train import train_under_prefect

    def work(progress: Progress, tell: Tell) -> "TrainResult":
        def both_step(*done: Any) -> None:
            step(*done)
            progress(*done)

        def both_tell(sentence: str) -> None:
            _say(sentence)
            tell(sentence)

        return train_by(read, progress=both_step, tell=both_tell)

    return train_under_prefect(url, spec, overrides, work, warn_on_stderr)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def progress_lines(name: str) -> Progress:
    """What tells of a training's steps on standard error: in place on a terminal, else a line every few seconds."""
    from flows.wording import duration

    told: dict[str, Any] = {}

    def tell(step: int, steps: int, loss: float, samples_per_s: float) -> None:
        now = time.monotonic()
        if step <= told.get("step", 0):  # a stage after another counts anew
            told.clear()
        told["step"] = step
        first_step, began = told.setdefault("first", (step, now))
        terminal = sys.stderr.isatty()
        every_s = _REDRAW_EVERY_S if terminal else _LINE_EVERY_S
        if step < steps and now - told.get("last", 0.0) < every_s:
            return
        told["last"] = now
        line = f"{name}: step {step:,} of {steps:,}, loss {loss:.3f}, {samples_per_s:,.0f} samples/s"
        if first_step < step < steps:
            line += f", {duration((now - began) / (step - first_step) * (steps - step))} left"
        end = "" if terminal and step < steps else "\n"
        print(f"\r{line}\x1b[K" if terminal else line, end=end, file=sys.stderr, flush=True)

    return tell


VERBS: tuple[Any, ...] = (train,)
