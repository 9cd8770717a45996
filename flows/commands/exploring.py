"""A page to look at a finished set and move thresholds: `explore`."""

import click

from flows.commands.verb import find_store, store_option, verb


@verb()
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@store_option
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Where to serve it; default: any free port.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--time-limit", type=float, default=60, show_default=True, metavar="SECONDS", help="Of one question.")
@click.option("--memory-limit", type=float, default=4, show_default=True, metavar="GB", help="For the loaded rows.")
def explore(name: str | None, store: str | None, port: int, no_browser: bool, **limits: float) -> None:
    """Open a page on this machine: pictures, linked histograms, thresholds; what it finds can be exported."""
    from curation.analytics.explorer.serving import served
    from curation.analytics.limits import Limits

    allowed = Limits(limits["time_limit"], limits["memory_limit"])
    with served(find_store(store), name, port, allowed, lambda said: click.echo(said, err=True)) as page:
        click.echo(page.address)
        click.echo("Open it in a browser on this machine; Ctrl-C stops it.", err=True)
        page.run(opens_browser=not no_browser)


VERBS: tuple[click.Command, ...] = (explore,)
