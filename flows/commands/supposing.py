"""What would be: `what-if`. No worker is started, and nothing is written."""

import json

import click

from flows.commands.verb import set_option, spec_argument, verb


@verb("what-if")
@spec_argument
@set_option
@click.option("--store", type=click.Path(), help="The store; default: what the specification says.")
@click.option("--limit", type=click.IntRange(min=1), help="Over so many rows of the source, as a run with --limit was.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def what_if(
    ctx: click.Context, /, spec: str, overrides: tuple[str, ...], store: str | None, limit: int | None, as_json: bool
) -> None:
    """Show what a changed specification would select, beside the newest version, from signals alone."""
    from curation.analytics.what_if import what_if as supposed
    from flows.one_run import Request
    from flows.progress import Progress

    found = supposed(Request(spec, store, limit, overrides).open_job(Progress()))
    click.echo(json.dumps(found.record(), indent=2, ensure_ascii=False) if as_json else found.text())
    ctx.exit(found.exit_code)


VERBS: tuple[click.Command, ...] = (what_if,)
