"""SQL over one row: expressions are bound before anything runs, must be functions of the row alone, and keep row order.

Only one expression is taken: no subquery, window, aggregate or table function, and only functions that DuckDB declares
CONSISTENT (its binder would take `random()` without complaint). Embeddings appear as FLOAT[].
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from schemas.columns import KEY
from schemas.errors import InputError, RunError

_TABLE = "row"
_local = threading.local()


def bind(expressions: Mapping[str, str], columns: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types that DuckDB gives expressions over an empty table with these columns. Raises InputError."""
    for text in expressions.values():
        _require_function_of_row(text, columns)
    if not expressions:
        return {}
    empty = pa.schema([pa.field(name, _sql_type(kind)) for name, kind in columns.items()]).empty_table()
    try:
        schema = _query(expressions, empty).schema
    except duckdb.Error as error:
        raise InputError(_said(error)) from error
    return {name: schema.field(i).type for i, name in enumerate(expressions)}


def evaluate(expressions: Mapping[str, str], table: pa.Table) -> pa.Table:
    """The values of bound expressions for every row, in the rows' order. Raises RunError naming the row's key."""
    if not expressions:
        return pa.table({})
    table = for_sql(table)
    try:
        return _query(expressions, table)
    except duckdb.Error as error:
        guilty = _guilty_row(expressions, table)
        key = table[KEY.name][guilty].as_py() if KEY.name in table.column_names else str(guilty)
        raise RunError(
            f"on the row with key {key}: {_said(error)}; where that may happen, wrap it in try(…)"
        ) from error


def used_columns(expression: str, columns: Mapping[str, pa.DataType]) -> set[str]:
    """The columns that an expression reads, under the names that the plan gives them."""
    known = {name.casefold(): name for name in columns}
    found = set()
    for node in _nodes(_parsed(expression)):
        if node.get("class") == "COLUMN_REF":
            found |= {known[piece.casefold()] for piece in node["column_names"] if piece.casefold() in known}
    return found


def for_sql(table: pa.Table) -> pa.Table:
    """The table as SQL sees it: embeddings as lists of float32."""
    for place, field in enumerate(table.schema):
        if pa.types.is_fixed_size_binary(field.type):
            table = table.set_column(place, field.name, _as_float_lists(table[field.name]))
    return table


def _as_float_lists(column: pa.ChunkedArray) -> pa.Array:
    values = [None if v is None else np.frombuffer(v, np.float16).astype(np.float32) for v in column.to_pylist()]
    return pa.array(values, pa.list_(pa.float32()))


def _sql_type(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.float32()) if pa.types.is_fixed_size_binary(kind) else kind


def _connection() -> duckdb.DuckDBPyConnection:
    """This thread's connection: in memory, without access to files or network, its settings locked."""
    if not hasattr(_local, "connection"):
        connection = duckdb.connect(":memory:")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        _local.connection = connection
    found: duckdb.DuckDBPyConnection = _local.connection
    return found


def _query(expressions: Mapping[str, str], table: pa.Table) -> pa.Table:
    connection = _connection()
    connection.register(_TABLE, table)
    try:
        chosen = ", ".join(f'(\n{text}\n) AS "{name}"' for name, text in expressions.items())
        return connection.sql(f'SELECT {chosen} FROM "{_TABLE}"').to_arrow_table()
    finally:
        connection.unregister(_TABLE)


def _guilty_row(expressions: Mapping[str, str], table: pa.Table) -> int:
    """The first row on which the expressions fail, found by halving."""
    start, count = 0, table.num_rows
    while count > 1:
        half = count // 2
        try:
            _query(expressions, table.slice(start, half))
        except duckdb.Error:
            count = half
        else:
            start, count = start + half, count - half
    return start


def _require_function_of_row(text: str, columns: Mapping[str, pa.DataType]) -> None:
    known = {name.casefold() for name in columns}
    tree = _parsed(text)
    for node in _nodes(tree):
        kind = node.get("class")
        if kind == "SUBQUERY":
            raise InputError("holds a subquery; an expression sees one row only")
        if kind == "WINDOW":
            raise InputError(f"holds a window function ({node['function_name']}); an expression sees one row only")
        if kind == "STAR":
            raise InputError("holds a star; name the columns")
        if kind == "FUNCTION":
            _require_consistent(node["function_name"])
    _require_no_clock(tree, known)


@cache
def _require_consistent(name: str) -> None:
    for kind, stability, definition in _functions().get(name, ()):
        if kind in ("aggregate", "table", "table_macro", "pragma"):
            raise InputError(f"{name}() is a function over many rows; an expression sees one row only")
        if kind == "macro" and definition:
            for node in _nodes(_parsed(definition)):
                if node.get("class") == "SUBQUERY":
                    raise InputError(f"{name}() looks beyond the row")
                if node.get("class") == "FUNCTION" and node["function_name"] != name:
                    _require_consistent(node["function_name"])
        elif kind == "scalar" and stability not in (None, "CONSISTENT"):
            raise InputError(f"{name}() does not give the same value every time ({stability}); a selection must")


@cache
def _functions() -> dict[str, list[tuple[str, str | None, str | None]]]:
    rows = (
        _connection()
        .sql("SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()")
        .fetchall()
    )
    found: dict[str, list[tuple[str, str | None, str | None]]] = {}
    for name, kind, stability, definition in rows:
        found.setdefault(name, []).append((kind, stability, definition))
    return found


_CLOCK = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_user", "user"}


def _require_no_clock(tree: Any, known: set[str]) -> None:
    """Names that SQL gives to the time and the user parse as columns."""
    for node in _nodes(tree):
        if node.get("class") == "COLUMN_REF":
            name = node["column_names"][0].casefold()
            if name in _CLOCK and name not in known:
                raise InputError(f"{name} does not give the same value every time; a selection must")


@cache
def _parsed(text: str) -> Any:
    """DuckDB's tree of one expression. Raises InputError where it is not one."""
    query = f'SELECT (\n{text}\n) AS value FROM "{_TABLE}"'
    ((answer,),) = _connection().execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()
    tree = json.loads(answer)
    if tree.get("error"):
        raise InputError(f"is no SQL expression: {tree.get('error_message', 'it cannot be parsed')}: {text}")
    node = tree["statements"][0]["node"]
    clean = len(tree["statements"]) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    clean = clean and node["from_table"]["type"] == "BASE_TABLE" and not node["modifiers"]
    clean = clean and not any(node.get(clause) for clause in ("where_clause", "having", "qualify", "group_expressions"))
    if not clean:
        raise InputError(f"must be one SQL expression over a row: {text}")
    return node["select_list"][0]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _said(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the query that we built around the expression."""
    lines = str(error).split("\nLINE ")[0].splitlines()
    text = " ".join(line.strip() for line in lines if line.strip())
    text = re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", text)
    text = re.sub(rf'"{_TABLE}\.([^"]+)"', r'"\1"', text)
    return (
        text.replace("! Candidate", ". Candidate")
        .replace(" in FROM clause.", ".")
        .replace("Candidate bindings", "Candidates")
    )
