"""What runs in the background or on its own: `status`, `up`, `down`, `schedule`."""

import json
import time
from pathlib import Path
from typing import Any

import click

from flows.commands.verb import spec_argument, verb


@verb()
@click.option("--store", type=click.Path(), help="Only runs on this store; default: all runs of this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(store: str | None, as_json: bool) -> None:
    """Show what runs now, from another terminal."""
    from flows.services import NAMES, standing
    from flows.status_file import running

    runs, services = running(Path(store) if store else None), standing()
    if as_json:
        click.echo(json.dumps({"runs": runs, "services": {n: s.address for n, s in services.items()}}))
        return
    click.echo("\n\n".join(map(_described, runs)) if runs else "no run goes on")
    for name in NAMES:
        found = services.get(name)
        where = f"runs at {found.address} (process {found.pid})" if found else "is not up"
        click.echo(f"{name.capitalize()} {where}")


def _described(run: dict[str, Any]) -> str:
    from flows.wording import duration, progress_line

    since = duration(time.time() - run["started"])
    lines = [f"{run['name']} on {run['store']}: process {run['pid']} on {run['host']}, for {since}"]
    lines += [f"  {label}: {rows_out:,} of {rows_in:,} rows live on" for label, rows_in, rows_out in run["decided"]]
    return "\n".join([*lines, f"  {progress_line(run)}"])


@verb()
def up() -> None:
    """Start a local Prefect server and Ray in the background."""
    from flows import services

    before = services.standing()
    for name, found in services.up().items():
        click.echo(f"{name.capitalize()} {'runs already' if name in before else 'is up'} at {found.address}")
    click.echo("`pairmill run` uses them from now on; `pairmill down` stops them")


@verb()
@click.option("--yes", is_flag=True, help="Stop it also under a run, which ends with it.")
def down(yes: bool) -> None:
    """Stop what `up` started; refused while a run uses it."""
    from flows import services

    stopped = services.down(under_runs=yes)
    click.echo(f"stopped: {', '.join(name.capitalize() for name in stopped)}" if stopped else "nothing was up")


@verb()
@spec_argument
@click.option("--cron", required=True, metavar='"MIN HOUR DAY MONTH WEEKDAY"', help='When, as in "0 3 * * *".')
@click.option("--store", type=click.Path(), help="The store; default: what the specification says.")
@click.option("--timezone", default="UTC", show_default=True, help="The time zone of --cron.")
def schedule(spec: str, cron: str, store: str | None, timezone: str) -> None:
    """Run a specification again and again: a Prefect deployment."""
    from flows.scheduling import deploy

    made = deploy(spec, cron, store, timezone)
    click.echo(f"deployment {made.name}, {cron!r} ({timezone}), is known to {made.url}")
    click.echo(f"a worker runs it; start one with:\n  PREFECT_API_URL={made.url} {made.worker_command}")


VERBS = (status, up, down, schedule)
