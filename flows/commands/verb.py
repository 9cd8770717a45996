"""What all verbs have in common: `--debug`, and how they find a store when none is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schemas.errors import InputError


def verb(name: str | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a verb of the command line."""

    def made(function: Callable[..., Any]) -> click.Command:
        debug = click.option(
            "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_debug, help="Show tracebacks."
        )
        return click.command(name)(debug(function))

    return made


spec_argument = click.argument("spec", type=click.Path())
store_option = click.option("--store", "store", type=click.Path(), help="The store; default: the only one in data/.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value: steps[3].dedup.within=2."
)


def find_store(store: str | None) -> Path:
    """The store that was named, or the only one in data/. Raises InputError."""
    if store is not None:
        return Path(store)
    found = sorted(path.parent for pattern in ("data/store.json", "data/*/store.json") for path in Path().glob(pattern))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError("there is no store in data/; name one with --store")
    raise InputError(f"there are several stores in data/: {', '.join(map(str, found))}; name one with --store")


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and ctx.find_root().obj is not None:
        ctx.find_root().obj["debug"] = True
