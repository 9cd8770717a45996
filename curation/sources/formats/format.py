"""What a format of source tables is: it describes a file, and writes the SQL that scans files."""

import glob
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from curation.sources.sql_types import rides_as

Columns = Sequence[tuple[str, str]]  # (name, DuckDB's type as SQL text); names as the file spells them
Described = tuple[str, Columns]  # a path and its columns

LINE_BYTES = 16 << 20  # the longest line of text that is read: a CSV row or a JSON object


class Format(ABC):
    """One format. Frozen and picklable; types are SQL text because DuckDB's type objects are not."""

    json = False  # a field may be lacking anywhere, and whole numbers may stand beside others

    @abstractmethod
    def describe(self, connection: duckdb.DuckDBPyConnection, path: str) -> Columns:
        """The columns of one file."""

    @abstractmethod
    def scan(self, files: Sequence[Described], types: Mapping[str, str]) -> str:
        """SQL that selects columns of files by name, rows in the order of (file, row)."""

    def values(self, connection: duckdb.DuckDBPyConnection, scan: str, types: Mapping[str, str]) -> dict[str, str]:
        """The SQL expression that reads each of some columns of a scan, as a type that Parquet and Arrow have too."""
        return {name: f"CAST({quoted(name)} AS {rides_as(kind)})" for name, kind in types.items()}


def first_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The first row of a query, () if there is none; the result is read to its end, which frees the connection."""
    return next(iter(connection.execute(sql).fetchall()), ())


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def paths_sql(files: Sequence[Described]) -> str:
    """Paths as a SQL list; each names one file, also where it looks like a glob."""
    return "[" + ", ".join(text(glob.escape(path)) for path, _ in files) + "]"


def struct_sql(types: Mapping[str, str]) -> str:
    """Names and types as the SQL struct that DuckDB's readers take for `columns`."""
    return "{" + ", ".join(f"{text(name)}: {text(kind)}" for name, kind in types.items()) + "}"


def compression_of(files: Sequence[Described]) -> str:
    """What all files are packed with, by their suffixes; `auto` (by suffix, too) where they differ."""
    found = {_COMPRESSIONS.get(path.lower().rpartition(".")[2], "none") for path, _ in files}
    return found.pop() if len(found) == 1 else "auto"


_COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}
