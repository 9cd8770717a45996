"""Questions in SQL about finished data sets: read only, one SELECT at a time, stopped when it takes too long."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import BinaryIO

import duckdb

from curation.analytics.answer import FORMATS, Answer
from curation.analytics.limits import Limits, within
from curation.analytics.statement import require_one_select, views_in
from curation.analytics.view_columns import OF_STORE, VIEWS
from curation.analytics.views import Views, ledger_files
from curation.storage.store import Store
from curation.versions import resolve
from schemas.errors import InputError

_DEFAULT_LIMITS = Limits()
_ALIAS = re.compile(r"[a-z_][a-z0-9_]*\Z")
_TAKEN = {"main", "temp", "system", "memory", "information_schema", "pg_catalog", *VIEWS}
_LOCK = (  # the order matters: nothing can be allowed or loaded after the last
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET allow_persistent_secrets = false",
    "SET python_enable_replacements = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


def connect(
    store_path: Path | str,
    name: str | None = None,
    version: str | None = None,
    with_versions: Mapping[str, str] | None = None,
    *,
    downloads: bool = True,
    evaluations: bool = True,
    of_store: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
    spill: Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """DuckDB over one version (default: the newest), locked; `with_versions` maps schemas to `name@version`.

    For questions of our own: nothing else can be read, but a text of somebody else's could still overwrite what can.
    Those go through `ask`, or through `open_views` in Python.

    `downloads=False` and `evaluations=False` leave these views empty, which saves reading their records. `of_store`
    gives no version's views. `spill` is a folder for what does not fit into memory; a user's question gets none.
    Raises InputError where there is no such version.
    """
    store = Store.existing(store_path)
    chosen = None if of_store else resolve(store, f"{name}@{version}" if name and version else name)
    others = {alias: resolve(store, text) for alias, text in _checked(with_versions or {}).items()}
    connection = duckdb.connect(":memory:")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET parquet_metadata_cache = true")  # a listed file never changes
    connection.execute("SET memory_limit = $limit", {"limit": f"{limits.memory_gb}GB"})
    views = Views(connection, store)
    try:
        if chosen is not None:
            views.add_version(chosen)
        for alias, other in others.items():
            views.add_version(other, alias)
        views.add_runs()
        views.add_evaluations(evaluations)
        views.add_downloads(ledger_files(store, chosen) if downloads and chosen else [])
        views.explain()
    except duckdb.IOException as error:
        label, path = (chosen.label, chosen.path) if chosen else (store.root, "MANIFEST")
        raise InputError(f"{label}: {error}; `pairmill verify {path}` says what is damaged") from error
    _lock(connection, views.files, spill)
    return connection


def run_sql(
    store_path: Path | str,
    text: str,
    out: BinaryIO,
    *,
    name: str | None = None,
    with_versions: Mapping[str, str] | None = None,
    format: str = "table",
    limits: Limits = _DEFAULT_LIMITS,
    width: int | None = None,
) -> int:
    """Answer one SELECT into a stream as table, csv, json or parquet; return how many rows were written.

    `width` is the terminal's, for tables. Raises InputError for whatever is wrong with the question.
    """
    if format not in FORMATS:
        raise InputError(f"sql: there is no format {format!r}; there are {', '.join(FORMATS)}")
    with asked(store_path, text, name=name, with_versions=with_versions, limits=limits) as answer:
        return answer.write(out, format, limits.shown_rows, width)


@contextlib.contextmanager
def asked(
    store_path: Path | str,
    text: str,
    *,
    name: str | None = None,
    with_versions: Mapping[str, str] | None = None,
    limits: Limits = _DEFAULT_LIMITS,
) -> Iterator[Answer]:
    """The answer to one SELECT; reading it stands under the time limit too."""
    set_name, _, version = (name or "").partition("@")
    downloads = "downloads" in text.lower()
    views = views_in(text) & VIEWS.keys() if not set_name else set()
    connection = connect(
        store_path,
        set_name or None,
        version or None,
        with_versions,
        downloads=downloads,
        evaluations="evaluations" in text.lower(),
        of_store=bool(views) and views <= OF_STORE,
        limits=limits,
    )
    with contextlib.closing(connection), ask(connection, text, limits) as answer:
        yield answer


@contextlib.contextmanager
def ask(connection: duckdb.DuckDBPyConnection, text: str, limits: Limits = _DEFAULT_LIMITS) -> Iterator[Answer]:
    """The answer to one SELECT on a connection that `connect` made."""
    with within(limits, connection):
        require_one_select(connection, text)
        yield Answer(connection.sql(text))


def question(name: str) -> str:
    """The text of one of our own questions, which lie beside this file."""
    return (resources.files(__package__) / f"{name}.sql").read_text(encoding="utf-8")


def _lock(connection: duckdb.DuckDBPyConnection, files: list[str], spill: Path | None) -> None:
    """Nothing but these files can be read from here on, and no setting changed."""
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    connection.execute(f"SET allowed_paths = [{listed}]")
    connection.execute("SET temp_directory = $folder", {"folder": str(spill or "")})
    for statement in _LOCK:
        connection.execute(statement)


def _checked(with_versions: Mapping[str, str]) -> Mapping[str, str]:
    for alias in with_versions:
        if not _ALIAS.match(alias) or alias in _TAKEN:
            raise InputError(
                f"--with {alias}: is no free name for a schema; use lower-case letters, as in --with old=demo@v1"
            )
    return with_versions


__all__ = ["Limits", "ask", "asked", "connect", "question", "run_sql"]
