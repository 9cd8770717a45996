"""A Parquet table outside of the pool: its columns as DuckDB reads them, and the rows of it that match the pool's.

N: rows of the pool; P: pairs of a row and its partner.
"""

import tempfile
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.selection.ordering import identifier
from curation.sources.files import find_files, readable
from curation.sources.formats.format import paths_sql
from schemas.errors import InputError
from schemas.nearest import unknown_name

ROW = "__row__"  # no column is called that
_MEMORY_LIMIT = "1GB"


def types_in(patterns: Sequence[str], columns: Sequence[str]) -> dict[str, pa.DataType]:
    """The types of columns of a table in Parquet files, the same in each. Raises InputError."""
    found: dict[str, pa.DataType] = {}
    for path in find_files(patterns, "table"):
        schema = _schema(path)
        for name in columns:
            if name not in schema.names:
                raise InputError(f"table: {path}: {unknown_name(name, schema.names, 'its columns are')}")
            kind = schema.field(name).type
            if found.setdefault(name, kind) != kind:
                raise InputError(f"table: {path}: column {name!r} is of type {kind}, but {found[name]} in other files")
    return found


def _schema(path: str) -> pa.Schema:
    """A file's columns in the types that DuckDB gives them; embeddings stay what they are."""
    with readable(f"table: {path}", path), duckdb.connect() as connection:
        stored = pq.read_schema(path)
        seen = connection.sql(f"SELECT * FROM {_scan([path])} LIMIT 0").to_arrow_table().schema
    embeddings = {field.name for field in stored if (field.metadata or {}).get(b"dtype") == b"float16"}
    return pa.schema([stored.field(field.name) if field.name in embeddings else field for field in seen])


def _scan(paths: Sequence[str]) -> str:
    return f"read_parquet({paths_sql([(path, ()) for path in paths])}, hive_partitioning = false)"


def partners(values: pa.ChunkedArray, patterns: Sequence[str], on: str, columns: Mapping[str, str]) -> pa.Table:
    """For N values, the row of each that equals `on` of a row of the table, and that row's columns (ours: theirs).

    The table is read once, as a stream; memory holds the values and what they match, and spills the rest.
    """
    brought = "".join(f", theirs.{identifier(theirs)} AS {identifier(ours)}" for ours, theirs in columns.items())
    with tempfile.TemporaryDirectory() as spilled, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute("SET temp_directory = $folder", {"folder": spilled})
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        connection.register("ours", pa.table({ROW: np.arange(len(values)), "value": values}))
        return connection.sql(
            f"""SELECT ours.{ROW}{brought} FROM {_scan(find_files(patterns, "table"))} AS theirs
                JOIN ours ON theirs.{identifier(on)} = ours.value"""
        ).to_arrow_table()
