"""What an SQL expression over a row may be: one expression, of this row alone, with the same value every time.

DuckDB's binder would take `random()`, subqueries and `#1` without complaint, so its own syntax tree is walked: no
subquery, window, aggregate or table function, and only functions that DuckDB declares CONSISTENT.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import duckdb

from schemas.errors import InputError

TABLE = "__row__"  # no column is called that, so that a bare name is never the whole row
_local = threading.local()

_FORBIDDEN = {
    "SUBQUERY": "holds a subquery; an expression sees one row only",
    "WINDOW": "holds a window function; an expression sees one row only",
    "STAR": "holds a star; name the columns",
    "POSITIONAL_REFERENCE": "holds a column by number; name it",
    "PARAMETER": "holds a parameter ($1 or ?); write the value itself",
}
_OF_THE_SESSION = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"} | {
    "user", "current_user", "session_user", "current_role", "current_catalog", "current_schema"
}  # fmt: skip
_WRONGLY_CONSISTENT = {"current_localtime", "current_localtimestamp", "version"}  # DuckDB 2.0 declares them so
_MANY_ROWS = ("aggregate", "table", "table_macro", "pragma")


def connection() -> duckdb.DuckDBPyConnection:
    """This thread's connection: in memory, in UTC, without access to files or network, its settings locked."""
    if not hasattr(_local, "connection"):
        opened = duckdb.connect(":memory:")
        for setting in ("enable_progress_bar = false", "TimeZone = 'UTC'", "enable_external_access = false"):
            opened.execute(f"SET {setting}")
        opened.execute("SET lock_configuration = true")
        _local.connection = opened
    found: duckdb.DuckDBPyConnection = _local.connection
    return found


def require_function_of_row(text: str, columns: Iterable[str]) -> None:
    """Raise InputError where a text is not one expression over the columns of one row."""
    known = _by_case(columns)
    for node in _nodes(parsed(text)):
        kind = node.get("class")
        if kind in _FORBIDDEN:
            raise InputError(_FORBIDDEN[kind])
        if kind == "FUNCTION":
            if node["function_name"] == "age" and len(node["arguments"]) == 1:
                raise InputError("age() of one date counts from today; give it both dates")
            _require_consistent(node["function_name"])
        if kind == "COLUMN_REF":
            _require_column(node["column_names"][0], known)


def used_columns(text: str, columns: Iterable[str]) -> set[str]:
    """The columns that an expression reads, under the names that they have among `columns`."""
    known = _by_case(columns)
    names = {node["column_names"][0].casefold() for node in _nodes(parsed(text)) if node.get("class") == "COLUMN_REF"}
    return {name for found in names for name in known.get(found, ())}


def plain_column(text: str, columns: Iterable[str]) -> str | None:
    """The column that an expression merely names; None where something is computed."""
    tree = parsed(text)
    if tree.get("class") != "COLUMN_REF" or len(tree["column_names"]) > 1:
        return None
    same = _by_case(columns).get(tree["column_names"][0].casefold(), [])
    return same[0] if len(same) == 1 else None


@cache
def parsed(text: str) -> Any:
    """DuckDB's tree of one expression. Raises InputError where it is not one."""
    if not text.strip():
        raise InputError("is empty; write an SQL expression")
    query = select({"value": text})
    ((answer,),) = connection().execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()
    tree = json.loads(answer)
    if tree.get("error"):
        said = tree.get("error_message", "it cannot be parsed").split("\n")[0]
        raise InputError(f"is no SQL expression: {said}: {text}")
    node = tree["statements"][0]["node"]
    clean = len(tree["statements"]) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    clean = clean and node["from_table"].get("table_name") == TABLE and not node["modifiers"] and not node["sample"]
    clean = clean and not any(node.get(clause) for clause in ("where_clause", "having", "qualify", "group_expressions"))
    if not clean or node["select_list"][0].get("alias") != "value":
        raise InputError(f"must be one SQL expression over a row: {text}")
    found = node["select_list"][0]
    if found.get("function_name") == "row" and not found["arguments"]:  # nothing but a comment
        raise InputError(f"is empty; write an SQL expression: {text}")
    return found


def select(expressions: dict[str, str]) -> str:
    """The query that evaluates expressions, each under its name."""
    # A line of its own for each: a comment in it must not swallow what follows.
    chosen = ", ".join(f"(\n{text}\n) AS {quoted(name)}" for name, text in expressions.items())
    return f"SELECT {chosen} FROM {quoted(TABLE)}"


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _require_column(name: str, known: dict[str, list[str]]) -> None:
    same = known.get(name.casefold(), [])
    if len(same) > 1:
        raise InputError(
            f"{name!r} could be {' or '.join(same)}: SQL ignores case; map one to another name in `source`"
        )
    if not same and name.casefold() in _OF_THE_SESSION:
        raise InputError(f"{name} does not give the same value every time; a selection must")
    if name.casefold() == TABLE:
        raise InputError(f"{name} is no column")


@cache
def _require_consistent(name: str) -> None:
    if name in _WRONGLY_CONSISTENT:
        raise InputError(f"{name}() does not give the same value every time; a selection must")
    found = _functions().get(name, [])
    scalars = [entry for entry in found if entry[0] in ("scalar", "macro")]
    if found and not scalars and found[0][0] in _MANY_ROWS:
        raise InputError(f"{name}() is a function over many rows; an expression sees one row only")
    for kind, stability, definition in scalars:
        if kind == "scalar" and stability not in (None, "CONSISTENT"):
            raise InputError(f"{name}() does not give the same value every time ({stability}); a selection must")
        for node in _nodes(parsed(definition)) if kind == "macro" and definition else ():
            if node.get("class") == "SUBQUERY":
                raise InputError(f"{name}() looks beyond the row")
            if node.get("class") == "FUNCTION" and node["function_name"] != name:
                _require_consistent(node["function_name"])


@cache
def _functions() -> dict[str, list[tuple[str, str | None, str | None]]]:
    """(kind, stability, definition of a macro) of every function that DuckDB has, by name."""
    query = "SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()"
    found: dict[str, list[tuple[str, str | None, str | None]]] = {}
    for name, *entry in connection().sql(query).fetchall():
        found.setdefault(name, []).append(tuple(entry))
    return found


def _by_case(columns: Iterable[str]) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    for name in columns:
        known.setdefault(name.casefold(), []).append(name)
    return known


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a tree, whatever holds it."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
