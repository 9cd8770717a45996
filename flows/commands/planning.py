"""What can be known before running: `check`, `plan`, `operators`. No worker is started."""

import json
from typing import TYPE_CHECKING, Any

import click

from flows.commands.verb import set_option, spec_argument, verb
from schemas.errors import InputError

if TYPE_CHECKING:
    from curation.job import Job


@verb()
@click.argument("spec", type=click.Path(), required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of specifications, for editors.")
def check(spec: str | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check a specification as far as is possible without running it."""
    if schema:
        from flows.catalogue import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        return
    if spec is None:
        raise click.UsageError("Missing argument 'SPEC'.")
    job = _open(spec, None, None, overrides)
    click.echo(_steps(job))
    click.echo(f"columns: {', '.join(job.plan.columns)}")
    click.echo("ok")


@verb()
@spec_argument
@click.option("--store", type=click.Path(), help="The store; default: what the specification says.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only so many rows of the source.")
@set_option
def plan(spec: str, store: str | None, limit: int | None, overrides: tuple[str, ...]) -> None:
    """Show the stages, what is there already, and what would run."""
    from flows.preview import preview

    click.echo(preview(_open(spec, store, limit, overrides)))


@verb()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--markdown", is_flag=True, help="Print the tables of the README.")
@click.option(
    "--check", "folder", is_flag=False, flag_value="ops", metavar="[FOLDER]", help="Try your own; default: ops."
)
@click.pass_context
def operators(ctx: click.Context, /, as_json: bool, markdown: bool, folder: str | None) -> None:
    """List what can stand in `steps`, with parameters and columns."""
    from flows.catalogue import catalogue, catalogue_markdown, catalogue_text

    if folder is not None:
        ctx.exit(_tried(folder))
    if markdown:
        click.echo(catalogue_markdown())
        return
    click.echo(json.dumps(catalogue(), indent=2) if as_json else catalogue_text())


def _tried(folder: str) -> int:
    """Check the operators of a folder, tell of each file, and return the exit code."""
    from curation.operator_contract import check_folder

    found = check_folder(folder)
    for name, breaches in found.items():
        click.echo("\n".join(f"{name}: {breach}" for breach in breaches) or f"{name}: ok")
    if not found:
        raise InputError(
            f"operators --check: {folder} holds no operator; an operator is a file <name>.py with one class"
        )
    return 2 if any(found.values()) else 0


def _open(spec: str, store: str | None, limit: int | None, overrides: tuple[str, ...]) -> "Job":
    from flows.one_run import Request
    from flows.progress import Progress

    return Request(spec, store, limit, overrides).open_job(Progress())


def _steps(job: "Job") -> str:
    from curation.stage import OperatorStep
    from flows.wording import columns_of

    rows: list[tuple[str, str]] = []
    for step in job.plan.steps:
        if isinstance(step, OperatorStep):
            rows.append((step.label, "adds " + ", ".join(step.visible[column.name] for column in step.adds)))
        else:
            rows.append((step.label, f"adds {step.mark}" if step.mark else "drops rows"))
    return columns_of(rows) if rows else "no steps"


VERBS: tuple[Any, ...] = (check, plan, operators)
