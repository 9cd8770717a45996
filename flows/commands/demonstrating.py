"""`pairmill demo`: the whole product on a small generated web."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.verb import verb

if TYPE_CHECKING:
    from flows.demo import Demo, Teller
    from flows.demo_captioner import Described

_LINE_EVERY_S = 5


@verb()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("data/demo"), show_default=True)
@click.option("--pairs", type=click.IntRange(min=300), default=3000, show_default=True, help="Size of the web.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--executor", type=click.Choice(["ray", "in-process"]), default="ray", show_default=True)
@click.option("--port", type=int, default=0, help="Where to serve the web; default: any free port.")
@click.option("--captioner", is_flag=True, help="Train a vision-language model on the curated set too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def demo(as_json: bool, **asked: Any) -> None:
    """Make a small web, curate it, train on the result, and hold it against the truth."""
    from flows.demo import demo as run_demo

    done = run_demo(asked["folder"], _teller(), **{k: v for k, v in asked.items() if k != "folder"})
    if as_json:
        click.echo(json.dumps(done.record()))
        return
    for line in told(done):
        click.echo(line)


def told(done: "Demo") -> Iterator[str]:
    """What the demo says at its end."""
    from flows.wording import funnel_text

    yield from ("", funnel_text(done.curated.funnel), "")
    yield "held against what was planted      taken out   precision   recall"
    for step in done.truth:
        name = f"{step.step}: {', '.join(step.kinds[:2])}{', …' if len(step.kinds) > 2 else ''}"
        yield f"  {name:<42.42}{step.taken_out:>9,}{_share(step.precision):>11}{_share(step.recall):>9}"
    names = list(done.scores["curated"])
    yield ""
    yield "zero-shot accuracy, equal compute       " + "".join(f"{name:>9}" for name in names)
    for which, rows in (("curated", done.curated.curated), ("uncurated", done.uncurated.curated)):
        scores = "".join(f"{done.scores[which][name]:>9.3f}" for name in names)
        yield f"  trained on {rows:>5,} pairs, {which:<17}{scores}"
    if done.captioner is not None:
        yield from ("", *_described(done.captioner))
    yield ""
    yield f"Everything lies in {done.folder}; the curated set is {done.curated.manifest}"
    yield f"({done.seconds:.0f} s in all). Try next:"
    store = f"--store {done.folder}"
    yield f'  pairmill sql "SELECT fate_step, count(*) FROM samples GROUP BY ALL ORDER BY 2 DESC" {store} --name demo'
    yield f"  pairmill explain KEY {store} --name demo      # a key from `SELECT key FROM samples`"
    yield "  pairmill run pipelines/curation/demo.yaml --set matching.fraction=0.5   # seconds"


def _described(captioner: "Described") -> Iterator[str]:
    """What the captioner says of pictures that it never saw."""
    scores = ", ".join(f"{name} {score:.3f}" for name, score in captioner.scores.items())
    yield f"captions of pictures never seen, the share that is right: {scores}"
    for one in captioner.captions:
        yield f"  {one['said']:<70.70}  it is a {one['colour']} {one['shape']}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _teller() -> "Teller":
    from flows.demo import Teller
    from flows.display import display

    last = [0.0]

    def now_and_then(line: str, *, always: bool = False) -> None:
        if always or time.monotonic() - last[0] > _LINE_EVERY_S:
            last[0] = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    def step(number: int, steps: int, loss: float, samples_per_s: float) -> None:
        eta_s = (steps - number) * 128 / samples_per_s if samples_per_s else 0
        line = f"  step {number:,} of {steps:,}, loss {loss:.3f}, {samples_per_s:,.0f} samples/s, {eta_s:.0f} s to go"
        now_and_then(line, always=number == steps)

    return Teller(
        lambda act: print(f"\n── {act}", file=sys.stderr, flush=True),
        lambda done, total: now_and_then(f"  {done:,} of {total:,} pairs", always=done == total),
        step,
        lambda: [display()],
    )


VERBS = (demo,)
