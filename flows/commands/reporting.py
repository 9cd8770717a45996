"""What a version is made of, as a page to look at: `report`."""

from pathlib import Path

import click

from flows.commands.verb import find_store, store_option, verb


@verb()
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@store_option
@click.option("--output", type=click.Path(), default=".", help="A file, or a folder to write NAME-VERSION.html into.")
@click.option("--format", "form", default="html", show_default=True, help="html, markdown or json.")
def report(name: str | None, store: str | None, output: str, form: str) -> None:
    """Write what a version is made of as one page: funnel, filters, signals, pictures at thresholds, costs."""
    from curation.analytics.report.write import write_report

    click.echo(write_report(find_store(store), name, Path(output), form))


VERBS: tuple[click.Command, ...] = (report,)
