"""What is taken out for good: `forget`."""

import json
from typing import Any

import click

from flows.commands.verb import find_store, store_option, verb
from schemas.errors import InputError


@verb()
@click.option("--keys", type=click.Path(), metavar="FILE", help="Rows by key, one a line.")
@click.option(
    "--urls", type=click.Path(), metavar="FILE", help="Rows by URL, one a line, in the store or still to come."
)
@click.option("--where", metavar="SQL", help="Rows of the newest version for which a predicate over samples is true.")
@click.option("--hosts", type=click.Path(), metavar="FILE", help="Rows by host, one a line; hosts below it, too.")
@click.option("--why", default="", help="The reason, for the record.")
@click.option("--who", help="Who asks, for the record; default: the user's name.")
@store_option
@click.option("--name", help="The set whose newest version --where is over; default: the only one of the store.")
@click.option("--dry-run", is_flag=True, help="Only tell what it would affect; nothing is written.")
@click.option("--purge", is_flag=True, help="Remove the bytes, too; alone, those of all that is forgotten so far.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def forget(
    why: str,
    who: str | None,
    store: str | None,
    name: str | None,
    dry_run: bool,
    purge: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Take rows out of every later selection, with all addresses and captions of the same pictures."""
    from curation.forget.asked import Asked
    from curation.forget.forget import forget as forgotten

    asked = Asked.of(given, name)
    if asked is None and not purge:
        raise InputError("forget: say what: --keys FILE, --urls FILE, --hosts FILE or --where SQL")
    outcome = forgotten(find_store(store), asked, why=why, who=who, dry_run=dry_run, purge=purge)
    click.echo(json.dumps(outcome.record(), indent=2, ensure_ascii=False) if as_json else outcome.text())


VERBS: tuple[click.Command, ...] = (forget,)
