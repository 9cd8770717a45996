"""DuckDB's types of a source's columns: which differ harmlessly between files, and as what each rides along."""

from collections.abc import Callable

import duckdb
from duckdb import sqltypes

Type = sqltypes.DuckDBPyType

_SIGNED = {"tinyint": 8, "smallint": 16, "integer": 32, "bigint": 64}
_UNSIGNED = {"utinyint": 8, "usmallint": 16, "uinteger": 32, "ubigint": 64}
_FLOATS = ("float", "double")
_MICROSECONDS = ("timestamp", "timestamp_s", "timestamp_ms")
NULL = '"NULL"'
_AS_TEXT = ("JSON", NULL, "UUID", "BIT", "INTERVAL", "TIME WITH TIME ZONE", "HUGEINT", "UHUGEINT", "BIGNUM")
_TEXT_IN_JSON = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "UUID")


def widened(first: str, second: str, json: bool = False) -> str | None:
    """The type that holds every value of both, or None where there is none that loses nothing.

    Widened are: whole numbers to one that holds both; whole numbers up to 32 bits and floats to DOUBLE; second and
    millisecond timestamps to microseconds; a column of nothing but NULL to anything; lists and structs by their
    members, where the structs have the same fields. In JSON, fields may be lacking and 5 may stand beside 5.5.
    """
    if first == second:
        return first
    kind = _widened(_type(first), _type(second), json)
    return str(kind) if kind is not None else None


def _widened(first: Type, second: Type, json: bool) -> Type | None:
    if first == second:
        return first
    if str(first) == NULL or str(second) == NULL:
        return second if str(first) == NULL else first
    if json and {str(first), str(second)} & {"JSON", "VARCHAR"} == {"JSON"}:
        return _type("JSON")
    if {str(first), str(second)} == {"JSON", "VARCHAR"}:
        return _type("VARCHAR")
    if first.id == second.id == "list":
        item = _widened(_members(first)["child"], _members(second)["child"], json)
        return duckdb.list_type(item) if item is not None else None
    if first.id == second.id == "struct":
        one, other = _members(first), _members(second)
        if set(one) != set(other) and not json:
            return None
        fields = {
            name: _widened(one.get(name, kind), other.get(name, kind), json) for name, kind in (one | other).items()
        }
        known = {name: kind for name, kind in fields.items() if kind is not None}
        return duckdb.struct_type(known) if len(known) == len(fields) else None
    return _widened_scalar({first.id, second.id}, json)


def _widened_scalar(ids: set[str], json: bool) -> Type | None:
    bits = {name: (_SIGNED | _UNSIGNED).get(name) for name in ids}
    if ids <= set(_MICROSECONDS):
        return _type("TIMESTAMP")
    if json and ids <= {"bigint", "hugeint", "double"}:
        return _type("DOUBLE" if "double" in ids else "HUGEINT")
    if ids & set(_FLOATS) and all(name in _FLOATS or (width or 64) <= 32 for name, width in bits.items()):
        return _type("DOUBLE")
    if None in bits.values():
        return None
    if ids <= set(_UNSIGNED):
        return _type(max(ids, key=_UNSIGNED.__getitem__))
    # A signed number that holds an unsigned one needs twice its bits.
    need = max(_SIGNED.get(name) or 2 * _UNSIGNED[name] for name in ids)
    return next((_type(name) for name, width in _SIGNED.items() if width == need), None)


def rides_as(kind: str) -> str:
    """The type as which a column rides along: its own, or text where Parquet or Arrow has none like it."""
    return str(_rebuilt(_type(kind), lambda leaf: leaf.id == "enum" or str(leaf) in _AS_TEXT))


def as_written(kind: str) -> str:
    """A type found in JSON without the guesses: text that looks like a date or a UUID stays text."""
    return str(_rebuilt(_type(kind), lambda leaf: str(leaf) in _TEXT_IN_JSON))


def _type(sql: str) -> Type:
    return duckdb.sqltype(sql)


def _rebuilt(kind: Type, becomes_text: Callable[[Type], bool]) -> Type:
    if kind.id not in ("struct", "list", "array", "map"):
        return _type("VARCHAR") if becomes_text(kind) else kind
    members = {name: _rebuilt(child, becomes_text) for name, child in _members(kind).items()}
    if kind.id == "struct":
        return duckdb.struct_type(members)
    if kind.id == "map":
        return duckdb.map_type(members["key"], members["value"])
    return duckdb.list_type(members["child"])


def _members(kind: Type) -> dict[str, Type]:
    """The types inside a nested type; beside them an array's children hold its length."""
    return {name: child for name, child in kind.children if isinstance(child, Type)}
