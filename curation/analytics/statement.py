"""Which statements of a user are run: exactly one SELECT that reads the views and nothing else.

DuckDB's own lock (no external access, locked settings) is the wall; this is the gate before it, and it gives sentences
instead of permission errors. See DuckDB's "Securing DuckDB": SQL is to be treated like code.
"""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from schemas.errors import InputError

MOST_BYTES = 65_536
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row"})
_FUNCTIONS_REFUSED = frozenset(
    {"current_setting", "write_log", "json_serialize_plan", "json_execute_serialized_sql", "pg_sleep", "sleep_ms"}
    | {"query", "query_table", "nextval", "setval"}
)
_FILE_MARKS = frozenset("/\\*?:$~")


def require_one_select(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Raise InputError unless the text is one SELECT over views."""
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InputError("sql: the statement holds half of a surrogate pair, which is no character") from None
    if size_bytes > MOST_BYTES:
        raise InputError(f"sql: the statement has more than {MOST_BYTES:,} bytes; ask a shorter question")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise InputError(f"sql: {error}") from None
    if len(statements) != 1:
        raise InputError(f"sql: there are {len(statements)} statements; exactly one SELECT is run at a time")
    kind = statements[0].type.name
    if kind != "SELECT":
        raise InputError(f"sql: is a statement of kind {kind}; only a SELECT is run, the store is never changed by it")
    for node in _nodes(_tree(connection, text)):
        _require_harmless(node)


def views_in(text: str) -> set[str]:
    """The names of views (in no schema of --with) that a statement reads; none where it cannot be parsed."""
    if len(text) > MOST_BYTES:
        return set()
    with duckdb.connect(":memory:") as connection:
        try:
            tables = [node for node in _nodes(_tree(connection, text)) if node.get("type") == "BASE_TABLE"]
        except (InputError, UnicodeEncodeError):
            return set()
    return {str(node["table_name"]).lower() for node in tables if node.get("schema_name", "") in ("", "main")}


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    """The parsed statement as JSON."""
    try:
        ((spelling,),) = connection.execute("SELECT json_serialize_sql($1)", [text]).fetchall()
        tree = json.loads(spelling)
    except (duckdb.Error, RecursionError) as error:
        raise InputError(f"sql: cannot be parsed ({error})") from None
    if tree.get("error", True):
        raise InputError(f"sql: {tree.get('error_message', 'cannot be parsed')}")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree, without recursion: the depth is the user's."""
    open_ = [tree]
    while open_:
        value = open_.pop()
        if isinstance(value, dict):
            yield value
            open_ += value.values()
        elif isinstance(value, list):
            open_ += value


def _require_harmless(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if kind == "TABLE_FUNCTION":
        name = (node.get("function") or {}).get("function_name", "")
        if name not in _TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(_TABLE_FUNCTIONS))
            raise InputError(f"sql: the table function {name}() is not for questions; there are {allowed}, and views")
    elif node.get("class") == "FUNCTION":
        if node.get("function_name") in _FUNCTIONS_REFUSED:
            raise InputError(f"sql: the function {node['function_name']}() is not for questions")
    elif kind in ("BASE_TABLE", "SHOW_REF"):
        _require_no_file(str(node.get("table_name", "")))


def _require_no_file(name: str) -> None:
    if _FILE_MARKS & set(name) or name.lower().endswith((".parquet", ".csv", ".tsv", ".json", ".jsonl", ".db")):
        raise InputError(f"sql: {name!r} is a file; questions read views only: samples, funnel, shards, runs …")
