"""What finished sets are asked: `sql`, `explain`, `versions`, `tag`, `diff`, `verify`, `prune`."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from flows.commands import supposing
from flows.commands.verb import find_store, store_option, verb
from schemas.errors import InputError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@verb()
@click.argument("text", metavar='["SELECT …"]', required=False)
@store_option
@click.option("--name", metavar="NAME[@VERSION]", help="The set; default: the only one of the store.")
@click.option("--with", "others", multiple=True, metavar="A=NAME@VERSION", help="Another version's views in a schema.")
@click.option("--format", "form", default="table", show_default=True, help="table, csv, json or parquet.")
@click.option("--time-limit", type=float, default=300, show_default=True, metavar="SECONDS")
@click.option("--memory-limit", type=float, default=4, show_default=True, metavar="GB")
@click.option("--rows", type=click.IntRange(min=1), help="Rows of a table at most; default: 100, in the shell 1,000.")
def sql(
    text: str | None,
    store: str | None,
    name: str | None,
    others: tuple[str, ...],
    form: str,
    rows: int | None,
    **limits: float,
) -> None:
    """Ask in SQL: views samples, curated, funnel, shards, parts, columns, runs, evaluations, downloads.

    Without a question, a shell on a terminal; from elsewhere, the question is read from standard input.
    """
    import shutil

    from curation.analytics.limits import Limits
    from curation.analytics.query import run_sql

    in_shell = text is None and sys.stdin.isatty()
    allowed = Limits(limits["time_limit"], limits["memory_limit"], rows or (1000 if in_shell else 100))
    if in_shell:
        if form != "table":
            raise InputError(f"sql: the shell shows tables; for --format {form} write the question behind it")
        from curation.analytics.shell import Shell

        Shell(find_store(store), name, _schemas(others), allowed, click.echo_via_pager).run()
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if form == "parquet" and sys.stdout.isatty():
        raise InputError("sql: --format parquet writes bytes; send them to a file: … --format parquet > answer.parquet")
    run_sql(
        find_store(store),
        sys.stdin.read() if text is None else text,
        sys.stdout.buffer,
        name=name,
        with_versions=_schemas(others),
        format=form,
        limits=allowed,
        width=width,
    )


@verb()
@click.argument("key")
@store_option
@click.option("--name", help="The set; default: every set that has the key.")
@json_option
def explain(key: str, store: str | None, name: str | None, as_json: bool) -> None:
    """Tell everything known of one pair, step by step; the first digits of its key will do."""
    from curation.analytics.explain import explain as explained

    found = explained(find_store(store), key, name)
    if as_json:
        _echo_json([one.record() for one in found])
    else:
        click.echo("\n\n".join(one.text() for one in found))


@verb()
@click.argument("name", required=False)
@store_option
@json_option
def versions(name: str | None, store: str | None, as_json: bool) -> None:
    """List the versions of a set and their tags, newest first."""
    from curation.storage.store import Store
    from curation.versions import names, resolve
    from curation.versions import versions as versions_of

    opened = Store.existing(find_store(store))
    wanted = [name] if name else names(opened) or [resolve(opened).manifest.name]
    found = [version for one in wanted for version in versions_of(opened, one)]
    if as_json:
        _echo_json([version.record() for version in found])
    else:
        click.echo(_versions_text(found))


def _versions_text(found: list[Any]) -> str:
    import time

    from flows.wording import columns_of, count

    head = ("version", "rows", "of", "finished", "tags")
    rows = [head]
    for version in found:
        at = version.finished_at
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at is not None else ""
        tags = [*version.tags, *(["(newest)"] if version.newest else [])]
        label = f"{version.name}@{version.version}"
        rows.append((label, count(version.rows), count(version.pool), when, " ".join(tags)))
    return columns_of(rows, right=(1, 2))


@verb()
@click.argument("version", metavar="NAME@VERSION")
@click.argument("tag", metavar="TAG")
@store_option
def tag(version: str, tag: str, store: str | None) -> None:
    """Give a version a name that is never moved; `prune` keeps it."""
    from curation.storage.store import Store
    from curation.versions import tag as tag_version

    chosen = tag_version(Store.existing(find_store(store)), version, tag)
    click.echo(f"{chosen.label} is tagged {tag}")


@verb()
@click.argument("a", metavar="NAME@VERSION")
@click.argument("b", metavar="NAME@VERSION")
@store_option
@json_option
def diff(a: str, b: str, store: str | None, as_json: bool) -> None:
    """Show what two versions have apart: rows, fates and steps."""
    from curation.analytics.diff import diff as difference

    found = difference(find_store(store), a, b)
    if as_json:
        _echo_json(found.record())
    else:
        click.echo(found.text())


@verb()
@click.argument("manifest", type=click.Path())
@json_option
@click.pass_context
def verify(ctx: click.Context, /, manifest: str, as_json: bool) -> None:
    """Check a finished set: every length, digest, key and fate."""
    from curation.verify import verify as verified

    report = verified(Path(manifest))
    if as_json:
        _echo_json(report.record())
    else:
        click.echo(report.text(), err=not report.ok)
    ctx.exit(report.exit_code)


@verb()
@store_option
@click.option("--yes", is_flag=True, help="Remove; without it, only say what would go.")
@click.option("--signals", is_flag=True, help="Signals that no kept version uses, too.")
@json_option
def prune(store: str | None, yes: bool, signals: bool, as_json: bool) -> None:
    """Remove old versions and left-over files; a dry run unless --yes."""
    from curation.prune import prune as pruned

    outcome = pruned(find_store(store), remove=yes, signals=signals)
    if as_json:
        _echo_json(outcome.record())
    else:
        click.echo(outcome.text())


def _schemas(others: tuple[str, ...]) -> dict[str, str]:
    """`a=demo@v1` as {a: demo@v1}."""
    found = {}
    for other in others:
        alias, equals, version = other.partition("=")
        if not equals:
            raise InputError(f"--with {other}: write it as schema=name@version, for example old=demo@v1")
        found[alias] = version
    return found


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


VERBS: tuple[click.Command, ...] = (sql, explain, versions, tag, diff, *supposing.VERBS, verify, prune)
