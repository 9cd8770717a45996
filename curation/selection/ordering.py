"""Order terms in SQL (`clip_score desc`), and the one total order of rows that they and the key make.

NULL and NaN come last in either direction; ties are decided by the key, so an order never depends on how rows arrived.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

POSITION = "position"  # a row's number in the table that is ordered


@dataclass(frozen=True)
class OrderTerm:
    """One term of an order: an SQL expression over a row's columns, and its direction."""

    expression: str
    descending: bool


@cache
def parse_order_term(term: str) -> OrderTerm:
    """Split `width_px * height_px desc` into expression and direction. Raises ValueError with what is wrong."""
    tree = _parse(f"select 1 order by {term}", term)
    modifiers = tree["statements"][0]["node"]["modifiers"]
    orders = modifiers[0]["orders"] if len(modifiers) == 1 else []
    if len(tree["statements"]) != 1 or len(orders) != 1:
        raise ValueError(f"{term!r} is not one SQL order term; write one such as 'clip_score desc' per list entry")
    order = orders[0]
    if order["null_order"] == "NULLS FIRST":
        raise ValueError(f"{term!r}: NULL and NaN always rank last; leave 'nulls first' away")
    if order["expression"]["class"] == "CONSTANT":
        raise ValueError(f"{term!r} is the same for every row; name a column")
    return OrderTerm(_text(order["expression"], term), order["type"] == "DESCENDING")


def identifier(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def positions_in_order(rows: pa.Table, terms: Sequence[tuple[str, bool]]) -> np.ndarray:
    """The row numbers 0 to N-1 in order of (column, descending) terms, then `key`, as `order_N`."""
    order_by = [_order_sql(name, rows.schema.field(name).type, descending) for name, descending in terms]
    result = query(f"select {POSITION} from rows order by {', '.join([*order_by, 'key'])}", rows=with_positions(rows))
    return result[POSITION]


def group_numbers(rows: pa.Table, name: str) -> np.ndarray:
    """For each row the number of its group of equal values of a column, from 0, as `group_N`; NULL is a group."""
    column = identifier(name)
    result = query(
        f"""select {POSITION}, group_number from rows
            join (select {column} as value, row_number() over () - 1 as group_number from rows group by {column})
            on {column} is not distinct from value""",
        rows=with_positions(rows),
    )
    group_N = np.empty(rows.num_rows, np.int64)
    group_N[result[POSITION]] = result["group_number"]
    return group_N


def _order_sql(name: str, type_: pa.DataType, descending: bool) -> str:
    """An ORDER BY term over a column, NULL and NaN last. (DuckDB sorts NaN first in DESC NULLS LAST.)"""
    column = identifier(name)
    value = f"case when isnan({column}) then null else {column} end" if pa.types.is_floating(type_) else column
    return f"{value} {'desc' if descending else 'asc'} nulls last"


def with_positions(rows: pa.Table) -> pa.Table:
    """Rows with their numbers as a column."""
    return rows.append_column(POSITION, pa.array(np.arange(rows.num_rows)))


def query(sql: str, **tables: pa.Table) -> dict[str, np.ndarray]:
    """Run SQL over Arrow tables in a DuckDB of its own, to numpy columns."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(sql).fetchnumpy()


def _parse(sql: str, term: str) -> Any:
    """DuckDB's syntax tree of a statement."""
    import duckdb

    with duckdb.connect() as connection:
        row = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    if tree["error"]:
        raise ValueError(f"{term!r} is not an SQL order term: {tree['error_message']}")
    return tree


def _text(expression: Any, term: str) -> str:
    """An expression's syntax tree as SQL; checked to be parsed to the same tree again."""
    import duckdb

    tree = _parse("select 1", term)
    tree["statements"][0]["node"]["select_list"] = [expression]
    with duckdb.connect() as connection:
        row = connection.execute("select json_deserialize_sql(?::json)", [json.dumps(tree)]).fetchone()
    assert row is not None
    sql = row[0].removeprefix("SELECT ")
    again = _parse(f"select 1 order by ({sql})", term)["statements"][0]["node"]["modifiers"][0]["orders"][0]
    if _without_places(again["expression"]) != _without_places(expression):
        raise ValueError(f"{term!r} is not understood; put the expression in parentheses or derive a column for it")
    return sql


def _without_places(tree: Any) -> Any:
    """A syntax tree without the places in the text that it came from."""
    if isinstance(tree, dict):
        return {name: _without_places(value) for name, value in tree.items() if not name.startswith("query_location")}
    return [_without_places(value) for value in tree] if isinstance(tree, list) else tree
