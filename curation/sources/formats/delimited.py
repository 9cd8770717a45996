"""CSV and TSV: RFC 4180 (TSV: the same with tabs), UTF-8, with a header; quoted fields may hold line ends.

A field without anything in it is NULL, `""` is an empty text. The types are found over every value of all files: a
column is BIGINT, UBIGINT, DOUBLE or BOOLEAN where reading it so loses nothing of what is written, else VARCHAR.
`007` stays text, and so do dates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import duckdb

from curation.sources.formats.format import (
    LINE_BYTES,
    Columns,
    Described,
    Format,
    compression_of,
    first_row,
    paths_sql,
    quoted,
    struct_sql,
    text,
)
from schemas.errors import SourceError

_TESTED = ("BIGINT", "UBIGINT", "DOUBLE", "BOOLEAN")
_INTEGER = "0|-?[1-9][0-9]*"
# With up to 15 digits before the point a double keeps what was written; longer ones are names, not numbers.
_NUMBER = "-?(0|[1-9][0-9]{0,14})([.][0-9]+)?([eE][+-]?[0-9]{1,3})?|nan|NaN|-?inf"


@dataclass(frozen=True)
class Delimited(Format):
    """Text with one character between fields."""

    delimiter: str

    def describe(self, connection: duckdb.DuckDBPyConnection, path: str) -> Columns:
        """The names in the header; without values every column is text."""
        options = f"{self._dialect([(path, ())])}, header = false, all_varchar = true"
        header = first_row(connection, f"SELECT * FROM read_csv({paths_sql([(path, ())])}, {options}) LIMIT 1")
        if not header:
            raise SourceError(f"{path}: has no header; the first line must hold the columns' names")
        # pandas writes its index without a name; DuckDB calls such columns by their place, and so do we.
        return [(name or f"column{place}", "VARCHAR") for place, name in enumerate(header)]

    def scan(self, files: Sequence[Described], types: Mapping[str, str]) -> str:
        """SQL that selects columns of files by name; files with other orders of columns are read apart."""
        scans = []
        for columns, group in groupby(files, key=lambda file: list(file[1])):
            alike = list(group)
            options = (
                f"{self._dialect(alike)}, header = true, auto_detect = false, columns = {struct_sql(dict(columns))}"
            )
            scans.append(f"SELECT * FROM read_csv({paths_sql(alike)}, {options})")
        return " UNION ALL BY NAME ".join(scans)

    def values(self, connection: duckdb.DuckDBPyConnection, scan: str, types: Mapping[str, str]) -> dict[str, str]:
        """Each column as the narrowest type that every value fits; one scan over all files."""
        tests = [test for name in types for test in _tests(f"nullif({quoted(name)}, '')")]
        if not tests:
            return {}
        found = iter(first_row(connection, f"SELECT {', '.join(tests)} FROM ({scan})"))
        expressions = {}
        for name in types:
            fits = [next(found) for _ in _TESTED]
            kind = next((kind for kind, fit in zip(_TESTED, fits, strict=True) if fit), None)
            expressions[name] = f"CAST(nullif({quoted(name)}, '') AS {kind})" if kind else quoted(name)
        return expressions

    def _dialect(self, files: Sequence[Described]) -> str:
        return (
            f"delim = {text(self.delimiter)}, quote = '\"', escape = '\"', strict_mode = true, "
            f"allow_quoted_nulls = false, skip = 0, max_line_size = {LINE_BYTES}, buffer_size = {2 * LINE_BYTES}, "
            f"compression = '{compression_of(files)}'"
        )


def _tests(value: str) -> list[str]:
    """For each type that is looked for, SQL that says whether all values are spelt as such (NULL: there is none)."""
    integer = f"regexp_full_match({value}, '{_INTEGER}')"
    tests = [
        f"{integer} AND try_cast({value} AS BIGINT) IS NOT NULL",
        f"{integer} AND try_cast({value} AS UBIGINT) IS NOT NULL",
        f"regexp_full_match({value}, '{_NUMBER}')",
        f"{value} IN ('true', 'false', 'True', 'False', 'TRUE', 'FALSE')",
    ]
    return [f"bool_and({test}) FILTER (WHERE {value} IS NOT NULL)" for test in tests]
