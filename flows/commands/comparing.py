"""`pairmill compare`: which of several data sets teaches a model more."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from flows.commands.verb import verb

if TYPE_CHECKING:
    from flows.one_comparison import ComparisonAsked
    from training.compare import Do
    from training.comparison.compared import Comparison


@verb()
@click.argument("sets", nargs=-1, required=True, metavar="SET SET…")
@click.option("--train", "training", required=True, metavar="SPEC", help="What is trained on each set, and how it is "
              "scored: a training specification, or a preset: datacomp-small, datacomp-medium.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Trainings of each set.")
@click.option("--store", type=click.Path(), help="The store; default: what the specifications say.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only so many rows of the source.")
@click.option("--metric", "metrics", multiple=True, metavar="EVALUATION.METRIC", help="Judge by it; default: "
              "top1, recall@1, CIDEr, a benchmark's score, and the numbers of commands. "
              "More is better, but of a loss, an error or a perplexity.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value of the training "
              "specification: samples=100000.")  # fmt: skip
@click.option("--output", type=click.Path(), help="Where trainings and verdict go; default: STORE/comparisons/NAME.")
@click.option("--executor", type=click.Choice(["ray", "in-process"]), default="ray", show_default=True)
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster; default: what `up` started, or a local Ray.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def compare(sets: tuple[str, ...], training: str, as_json: bool, **asked: Any) -> None:
    """Train the same model on several data sets of one pool, and tell which is better.

    A SET is a curation specification, which is run if need be, or a finished set: its folder, NAME or NAME@VERSION.
    Differences are told against the first set. The same command goes on where it was stopped.
    """
    from flows.compared_sets import SetsAsked
    from flows.one_comparison import ComparisonAsked

    ray_address = asked["ray_address"] or os.environ.get("RAY_ADDRESS")
    of_sets = SetsAsked(sets, asked["store"], asked["limit"], asked["executor"], ray_address)
    wanted = ComparisonAsked(of_sets, training, asked["seeds"], asked["overrides"], asked["metrics"], asked["output"])
    done = _compared(wanted)
    if as_json:
        click.echo(json.dumps(done.record()))
        return
    for line in told(done):
        click.echo(line)


def told(done: "Comparison") -> list[str]:
    """A comparison for people: tables, and the verdict last."""
    from flows.wording import columns_of
    from training.comparison.compared import RECORD

    lines = [done.head]
    for table in done.tables().values():
        lines += ["", columns_of(table)]
    return [*lines, "", done.note, "", *done.verdict.sentences, "", f"stored: {done.folder / RECORD}"]


def _compared(asked: "ComparisonAsked") -> "Comparison":
    """Compare, as a Prefect flow run where a server was configured or runs in the background."""
    from flows.commands.teaching import progress_lines
    from flows.display import display
    from flows.environment import quiet_environment
    from flows.one_comparison import Teller, run_comparison
    from flows.one_run import warn_on_stderr
    from flows.prefect_server import answers, configured_url

    quiet_environment()
    teller = Teller(_say, progress_lines, lambda: [display()])

    def work(do: "Do") -> "Comparison":
        return run_comparison(asked, teller, do)

    url = configured_url()
    if url is None or not answers(url):
        if url is not None:
            warn_on_stderr(f"the Prefect server {url} cannot be reached; the comparison goes on without it")
        return work(lambda _, piece: piece())
    from flows.compare import compare_under_prefect

    return compare_under_prefect(url, asked, work, warn_on_stderr)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


VERBS: tuple[Any, ...] = (compare,)
