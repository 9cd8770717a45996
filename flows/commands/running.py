"""`pairmill run`: the main job."""

import json
from pathlib import Path
from typing import Any

import click

from flows.commands.verb import set_option, verb

_ALL_CLASSES = "all"


@verb()
@click.argument("spec", required=False, metavar="SPEC")
@click.option("--store", type=click.Path(), help="The store; default: what the specification says.")
@click.option("--executor", type=click.Choice(["ray", "in-process"]), default="ray", show_default=True)
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster; default: what `up` started, or a local Ray.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only so many rows of the source.")
@set_option
@click.option(
    "--retry-failed",
    "retry",
    multiple=True,
    is_flag=False,
    flag_value=_ALL_CLASSES,
    metavar="[CLASS]",
    help="Try failures that may pass again: all, or one class (timeout, dns, …).",
)
@click.option("--give-up", multiple=True, metavar="PART", help="Fail the rows that a part cannot finish.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
@click.pass_context
def run(ctx: click.Context, /, spec: str | None, as_json: bool, retry: tuple[str, ...], **asked: Any) -> None:
    """Run a specification: from its source to curated shards and a manifest."""
    import os

    from curation.registry import dataset_steps
    from flows import one_run
    from flows.display import display
    from flows.wording import funnel_text, funnel_warnings

    if spec is None and retry and Path(retry[-1]).exists():  # `run --retry-failed spec.yaml`
        spec, retry = retry[-1], (*retry[:-1], _ALL_CLASSES)
    if spec is None:
        raise click.UsageError("Missing argument 'SPEC'.", ctx)
    request = one_run.Request(
        spec,
        asked["store"],
        asked["limit"],
        asked["overrides"],
        _classes(retry),
        asked["give_up"],
        asked["executor"],
        asked["ray_address"] or os.environ.get("RAY_ADDRESS"),
        ctx.find_root().obj["debug"],
    )
    result = one_run.run(request, [display()])
    decisions = [f"warning: {sentence}" for sentence in result.warnings]
    for sentence in [*funnel_warnings(result.funnel, list(dataset_steps())), *decisions]:
        click.echo(sentence, err=True)
    if as_json:
        click.echo(json.dumps(result.record()))
        return
    click.echo(funnel_text(result.funnel))
    if result.may_pass:
        click.echo(f"\n{result.may_pass:,} rows failed for reasons that may pass; --retry-failed tries them again")
    click.echo(
        f"\n{result.curated:,} of {result.pool:,} rows are curated, version {result.version}:\n{result.manifest}"
    )


def _classes(retry: tuple[str, ...]) -> tuple[str, ...] | None:
    """None: no retry; (): all classes."""
    if not retry:
        return None
    return () if _ALL_CLASSES in retry else retry


VERBS = (run,)
