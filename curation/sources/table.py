"""`source: {table: …}`: Parquet, CSV, TSV or JSON Lines, plain or packed; a path, a glob or a list.

Nothing is loaded here: a table becomes SQL over its files. Their order is that of their paths, whatever the order in
which a specification lists them, and `--limit` takes the first rows in the order of (file, row).
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import duckdb
import pyarrow as pa

from curation.sources.files import digested, find_files, readable
from curation.sources.formats.delimited import Delimited
from curation.sources.formats.format import Columns, Described, Format, quoted
from curation.sources.formats.jsonl import JsonLines
from curation.sources.formats.parquet import Parquet
from curation.sources.mapping import Assignment, assign, refuse_equal
from curation.sources.source import SourceFile
from curation.sources.sql_types import NULL, widened
from curation.sources.suggestion import did_you_mean
from schemas.errors import SourceError

_FORMATS: dict[str, Format] = {
    ".parquet": Parquet(),
    ".csv": Delimited(","),
    ".tsv": Delimited("\t"),
    ".jsonl": JsonLines(),
    ".ndjson": JsonLines(),
}
_PACKED = (".gz", ".zst")
_MEMORY_LIMIT = "1GB"


@dataclass(frozen=True)
class TableSource:
    """A table without pictures. Picklable."""

    format: Format
    described: tuple[Described, ...]  # each file with its columns, in order
    types: Mapping[str, str]  # the files' columns, as types that hold all files' values
    selected: Mapping[str, str]  # SQL expression by our name: url, caption, then the extra columns
    extra: Mapping[str, pa.DataType]
    limit: int | None = None

    @cached_property
    def files(self) -> tuple[SourceFile, ...]:
        """The files with their digests, taken when this is first asked for."""
        return tuple(digested(path) for path, _ in self.described)

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None, file: int | None = None) -> str:
        """SQL that selects url, caption and the extra columns: of all files up to the limit, or of one.

        Damage inside a file shows when the SQL runs: run it within `readable`.
        """
        described = self.described if file is None else self.described[file : file + 1]
        columns = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in self.selected.items())
        limit = "" if self.limit is None or file is not None else f" LIMIT {self.limit}"
        return f"SELECT {columns} FROM ({self.format.scan(described, self.types)}){limit}"


def open_table(
    paths: str | Sequence[str],
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    where: str = "source table",
    lenient: bool = False,
    leave_out: Collection[str] = (),
) -> TableSource:
    """Open a table: every file's columns are looked at, and must agree; some may be left out. Raises SourceError."""
    found = find_files(paths, where)
    form = _format_of(found, where)
    with database() as connection:
        described = tuple((path, _describe(connection, form, path, where)) for path in found)
        types = _agreed_types(form, described, where)
        named = [name for name in types if name not in leave_out]
        assignment = assign(named, columns or {}, f"{where}: {found[0]}", lenient)
        _refuse_other_than_text(assignment, types, f"{where}: {found[0]}")
        with readable(where):
            selected = _select(connection, form, described, types, assignment)
            bare = TableSource(form, described, types, selected, {}, limit)
            schema = connection.sql(f"SELECT * FROM ({bare.relation()}) LIMIT 0").to_arrow_table().schema
    return replace(bare, extra={name: schema.field(name).type for name in assignment.extra})


@contextlib.contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of our own, for looking at sources: bounded, silent, off the network, in UTC."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def _format_of(paths: Sequence[str], where: str) -> Format:
    suffixes = {path: _suffix(path) for path in paths}
    for path, suffix in suffixes.items():
        if suffix not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise SourceError(f"{where}: {path} has none of the suffixes {known}, also with {' or '.join(_PACKED)}")
        if suffix == ".parquet" and path.lower().endswith(_PACKED):
            raise SourceError(f"{where}: {path}: Parquet is packed inside; unpack the file")
        if _FORMATS[suffix] != _FORMATS[suffixes[paths[0]]]:
            raise SourceError(f"{where}: {paths[0]} and {path} are of different formats; give each a spec of its own")
    return _FORMATS[suffixes[paths[0]]]


def _suffix(path: str) -> str:
    name = path.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return os.path.splitext(name)[1]


def _describe(connection: duckdb.DuckDBPyConnection, form: Format, path: str, where: str) -> Columns:
    with readable(f"{where}: {path}", path):
        columns = form.describe(connection, path)
    refuse_equal([name for name, _ in columns], f"{where}: {path}")
    return columns


def _agreed_types(form: Format, described: Sequence[Described], where: str) -> dict[str, str]:
    """The type of each column over all files. Raises SourceError where files disagree."""
    types: dict[str, str] = {}
    giver: dict[str, str] = {}  # the file that a column's type comes from
    for path, columns in described:
        found = dict(columns)
        if types and not form.json and set(found) != set(types):
            raise SourceError(f"{where}: {_lacking(described[0][0], list(types), path, list(found))}")
        for name, kind in found.items():
            both = widened(types.get(name, kind), kind, form.json)
            if both is None:
                raise SourceError(
                    f"{where}: column {name!r} is {types[name]} in {giver[name]} and {kind} in {path}; "
                    "write it with one type, or give each file a spec of its own"
                )
            if types.get(name) != both:
                types[name], giver[name] = both, path
    return types


def _lacking(first: str, names: Sequence[str], second: str, others: Sequence[str]) -> str:
    has, lacks, column = (
        [(first, second, name) for name in names if name not in others]
        + [(second, first, name) for name in others if name not in names]
    )[0]
    hint = did_you_mean(column, (set(names) ^ set(others)) - {column})
    return f"{has} has column {column!r}, and {lacks} has none of that name{hint}; all files need the same columns"


def _refuse_other_than_text(assignment: Assignment, types: Mapping[str, str], where: str) -> None:
    for ours, theirs in (("url", assignment.url), ("caption", assignment.caption)):
        if theirs is not None and types[theirs] not in ("VARCHAR", NULL) and not types[theirs].startswith("ENUM("):
            kind = "text in some rows and not in others" if types[theirs] == "JSON" else types[theirs]
            raise SourceError(
                f"{where}: column {theirs!r} is to be the {ours} and is {kind}; it must be text: "
                "write it as text, or map another column with columns: {ours: theirs}"
            )


def _select(
    connection: duckdb.DuckDBPyConnection,
    form: Format,
    described: Sequence[Described],
    types: Mapping[str, str],
    assignment: Assignment,
) -> dict[str, str]:
    selected = {"url": _text_or_null(assignment.url), "caption": _text_or_null(assignment.caption)}
    scan = form.scan(described, types)
    wanted = {theirs: types[theirs] for theirs in assignment.extra.values()}
    expressions = form.values(connection, scan, wanted)
    return selected | {ours: expressions[theirs] for ours, theirs in assignment.extra.items()}


def _text_or_null(theirs: str | None) -> str:
    return "CAST(NULL AS VARCHAR)" if theirs is None else f"CAST({quoted(theirs)} AS VARCHAR)"
