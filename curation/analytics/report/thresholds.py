"""The numbers in a predicate: which expression is compared with which constant, by DuckDB's own parser."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from curation.sql_expression import connection, parsed, plain_column, quoted

_OPERATORS = {
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_LESSTHAN": "<",
}
_TURNED = {">=": "<=", ">": "<", "<=": ">=", "<": ">"}
_NUMERIC = ("INT", "DECIMAL", "FLOAT", "DOUBLE", "HUGEINT")


@dataclass(frozen=True)
class Threshold:
    """Rows of a step must have `expression` (SQL) `operator` `value`; `name` is how people call the expression."""

    step: str
    name: str
    expression: str
    operator: str
    value: float

    @property
    def condition(self) -> str:
        """The comparison as SQL."""
        return f"{self.expression} {self.operator} {self.value!r}"

    @property
    def text(self) -> str:
        """The comparison for people."""
        return f"{self.name} {self.operator} {self.value:.6g}"


def thresholds_in(step: str, predicate: str, columns: list[str]) -> list[Threshold]:
    """The comparisons of a predicate that a row must pass, or may pass in place of others; none under a NOT."""
    found = (
        Threshold(step, *named(expression, columns), operator, value)
        for expression, operator, value in _comparisons(parsed(predicate))
    )
    return list(dict.fromkeys(found))


def named(expression: str, columns: list[str]) -> tuple[str, str]:
    """How people call an expression, and its SQL: a plain column goes by its own name, all else as DuckDB spells it."""
    column = plain_column(expression, columns)
    if column:
        return column, quoted(column)
    spelled = _spelled(parsed(expression))
    name = spelled[1:-1] if spelled.startswith("(") else spelled  # what an operator joins comes in brackets
    return name, f"({spelled})"


def _comparisons(node: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    if node["class"] == "CONJUNCTION":
        for child in node["children"]:
            yield from _comparisons(child)
    elif node["class"] == "BETWEEN":
        yield from _compared(node["input"], ">=", node["lower"])
        yield from _compared(node["input"], "<=", node["upper"])
    elif node["type"] in _OPERATORS:
        operator = _OPERATORS[node["type"]]
        yield from _compared(node["left"], operator, node["right"])
        yield from _compared(node["right"], _TURNED[operator], node["left"])


def _compared(tested: dict[str, Any], operator: str, limit: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """The comparison, where one side looks at the row and the other is a number."""
    if _looks_at_row(tested) and not _looks_at_row(limit):
        value = _number(_spelled(limit))
        if value is not None:
            yield _spelled(tested), operator, value


def _looks_at_row(node: Any) -> bool:
    if isinstance(node, dict):
        return node.get("class") == "COLUMN_REF" or any(map(_looks_at_row, node.values()))
    return isinstance(node, list) and any(map(_looks_at_row, node))


def _number(expression: str) -> float | None:
    """The value of a constant expression; None where it is no finite number."""
    try:
        ((kind, value),) = connection().execute(f"SELECT typeof(v), v FROM (SELECT ({expression}) AS v)").fetchall()
    except duckdb.Error:
        return None
    if value is None or not any(word in kind for word in _NUMERIC):
        return None
    return float(value) if math.isfinite(value) else None


def _spelled(node: dict[str, Any]) -> str:
    """A node of DuckDB's tree as SQL."""
    ((text,),) = connection().execute("SELECT json_serialize_sql('SELECT 1')").fetchall()
    tree = json.loads(text)
    tree["statements"][0]["node"]["select_list"] = [node | {"alias": ""}]
    ((sql,),) = connection().execute("SELECT json_deserialize_sql($tree)", {"tree": json.dumps(tree)}).fetchall()
    return str(sql).removeprefix("SELECT ")
