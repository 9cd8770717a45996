"""SQL over one row: expressions are bound before anything runs, and keep the rows' order when they are evaluated.

What an expression may be stands in `sql_expression.py`. Embeddings appear as FLOAT[].
"""

import re
from collections.abc import Mapping

import duckdb
import numpy as np
import pyarrow as pa

from curation.sql_expression import TABLE, connection, plain_column, require_function_of_row, select
from curation.sql_expression import used_columns as _used_columns
from schemas.columns import KEY
from schemas.errors import InputError, RunError


def bind(expressions: Mapping[str, str], columns: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types that DuckDB gives expressions over an empty table with these columns. Raises InputError."""
    for text in expressions.values():
        require_function_of_row(text, columns)
    if not expressions:
        return {}
    empty = pa.schema([pa.field(name, _sql_type(kind)) for name, kind in columns.items()]).empty_table()
    try:
        schema = _query(expressions, empty).schema
    except duckdb.Error as error:
        raise InputError(_said(error)) from error
    return {name: schema.field(place).type for place, name in enumerate(expressions)}


def evaluate(expressions: Mapping[str, str], table: pa.Table) -> pa.Table:
    """The values of bound expressions for every row, in the rows' order. Raises RunError naming the row's key."""
    if not expressions:
        return pa.table({})
    used = {name for text in expressions.values() for name in used_columns(text, table.column_names)}
    seen = for_sql(table.select([n for n in table.column_names if n in used] or table.column_names[:1]))
    named = {name: plain_column(text, seen.column_names) for name, text in expressions.items()}
    if all(column and _passes_unchanged(seen[column].type) for column in named.values()):  # nothing to compute
        return pa.table({name: seen[column] for name, column in named.items()})
    try:
        return _query(expressions, seen)
    except duckdb.Error as error:
        row, said = _guilty_row(expressions, seen, error)
        name = f"the row with key {table[KEY.name][row]}" if KEY.name in table.column_names else f"row {row}"
        raise RunError(f"on {name}: {said}; where that may happen, wrap it in try(…)") from error


def used_columns(expression: str, columns: Mapping[str, pa.DataType] | list[str]) -> set[str]:
    """The columns that an expression reads, under the names that the plan gives them."""
    return _used_columns(expression, columns)


def for_sql(table: pa.Table) -> pa.Table:
    """The table as SQL sees it: embeddings as lists of float32."""
    for place, field in enumerate(table.schema):
        if pa.types.is_fixed_size_binary(field.type):
            table = table.set_column(place, field.name, _as_float_lists(table[field.name]))
    return table


def _passes_unchanged(kind: pa.DataType) -> bool:
    """Whether DuckDB gives a column back in the type in which it got it."""
    plain = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_float32, pa.types.is_float64)
    return any(is_plain(kind) for is_plain in plain)


def _as_float_lists(column: pa.ChunkedArray) -> pa.Array:
    """Vectors of float16 as lists of float32, NULL where there is none."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = array.type.byte_width // 2
    valid_N = array.is_valid().to_numpy(zero_copy_only=False)
    halves = np.frombuffer(array.buffers()[1] or b"", np.float16)[array.offset * width :][: len(array) * width]
    values_ND = halves.reshape(len(array), width)[valid_N].astype(np.float32)
    ends_N = np.cumsum(valid_N, dtype=np.int64) * width
    offsets = pa.array(np.concatenate([[0], ends_N]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.array(values_ND.ravel()), mask=pa.array(~valid_N))


def _sql_type(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.float32()) if pa.types.is_fixed_size_binary(kind) else kind


def _query(expressions: Mapping[str, str], table: pa.Table) -> pa.Table:
    here = connection()
    here.register(TABLE, table)
    try:
        return here.sql(select(dict(expressions))).to_arrow_table()
    finally:
        here.unregister(TABLE)


def _guilty_row(expressions: Mapping[str, str], table: pa.Table, error: duckdb.Error) -> tuple[int, str]:
    """The first row on which the expressions fail, found by halving, and what DuckDB says of it."""
    start, count = 0, table.num_rows
    while count > 1:
        half = count // 2
        try:
            _query(expressions, table.slice(start, half))
        except duckdb.Error as found:
            count, error = half, found
        else:
            start, count = start + half, count - half
    try:
        _query(expressions, table.slice(start, 1))
    except duckdb.Error as found:
        error = found
    return start, _said(error)


def _said(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the query that we built around the expression."""
    lines = str(error).split("\nLINE ")[0].splitlines()
    text = " ".join(line.strip() for line in lines if line.strip())
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
    text = text.replace(f'"{TABLE}.', '"').replace("! Candidate", ". Candidate").replace("!;", ";")
    return text.replace(" in FROM clause.", ".").replace("Candidate bindings", "Candidates").removesuffix("!")
