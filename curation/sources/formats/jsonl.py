"""JSON Lines: one object a line; a field that an object lacks is NULL.

The types are found over every row of every file. Text that looks like a date or a UUID stays text; a field that is
text here and a number there becomes text, JSON's own where it is nested. Whole numbers up to 2^64 - 1 are exact
(hashes are), longer ones are read as DOUBLE.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
)
from curation.sources.sql_types import as_written, rides_as
from schemas.errors import SourceError

# Every row of every file counts, and no object is taken for a map because its fields vary.
_EVERY_ROW = (
    "records = 'true', sample_size = -1, maximum_sample_files = 1000000, map_inference_threshold = -1, "
    "field_appearance_threshold = 0"
)


@dataclass(frozen=True)
class JsonLines(Format):
    """JSON Lines as DuckDB reads them."""

    json = True

    def describe(self, connection: duckdb.DuckDBPyConnection, path: str) -> Columns:
        """The fields of all objects of one file, in the order in which they first appear."""
        relation = connection.sql(f"SELECT * FROM {self._read([(path, ())], _EVERY_ROW)}")
        if any(re.search("_[0-9]+$", name) for name in relation.columns):
            self._refuse_equal_names(connection, path)  # DuckDB may have made such a name up
        return [(name, as_written(str(kind))) for name, kind in zip(relation.columns, relation.types, strict=True)]

    def scan(self, files: Sequence[Described], types: Mapping[str, str]) -> str:
        """SQL that selects fields of files by name."""
        kinds = {name: kind if kind == "HUGEINT" else rides_as(kind) for name, kind in types.items()}
        return f"SELECT * FROM {self._read(files, f'columns = {struct_sql(kinds)}')}"

    def values(self, connection: duckdb.DuckDBPyConnection, scan: str, types: Mapping[str, str]) -> dict[str, str]:
        """Each field as its type; hashes of 64 bits as UBIGINT; as text where some are negative."""
        kinds = dict(types)
        for name in [name for name, kind in types.items() if kind == "HUGEINT"]:
            column = quoted(name)
            fits = f"SELECT bool_and({column} BETWEEN 0 AND 18446744073709551615) FROM ({scan})"
            (unsigned,) = first_row(connection, fits)
            kinds[name] = "UBIGINT" if unsigned else "VARCHAR"
        return super().values(connection, scan, kinds)

    def _read(self, files: Sequence[Described], options: str) -> str:
        packed = f"compression = '{compression_of(files)}', maximum_object_size = {LINE_BYTES}"
        return f"read_json({paths_sql(files)}, format = 'newline_delimited', {packed}, {options})"

    def _refuse_equal_names(self, connection: duckdb.DuckDBPyConnection, path: str) -> None:
        packed = f"compression = '{compression_of([(path, ())])}', maximum_object_size = {LINE_BYTES}"
        names = first_row(
            connection,
            f"""
            SELECT string_agg(DISTINCT name, ', ' ORDER BY name)
            FROM (SELECT unnest(json_keys(json)) AS name FROM read_ndjson_objects({paths_sql([(path, ())])}, {packed}))
            GROUP BY lower(name) HAVING count(DISTINCT name) > 1
            """,
        )
        if names:
            raise SourceError(f"{path}: has fields that differ by case only: {names[0]}; rename them in the source")
