"""Scalar fields of many JSON objects as columns: one type per field that every object's value fits."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

_EXACT_IN_FLOAT = 2**53


class BrokenJson(ValueError):
    """Bytes are not one JSON object that Arrow can hold."""


def parse(data: bytes) -> dict[str, Any]:
    """The object that bytes spell. Raises BrokenJson, also for text that is no Unicode (lone surrogates)."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BrokenJson(f"not JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise BrokenJson(f"holds a {type(value).__name__}, not an object")
    return value


class FieldTypes:
    """What kinds of values the fields of objects have had so far."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def see(self, record: Mapping[str, Any]) -> None:
        """Count in one more object."""
        for name, value in record.items():
            self._seen.setdefault(name, set()).update(_kinds(value))

    def __len__(self) -> int:
        return len(self._seen)

    def types(self) -> Iterator[tuple[str, pa.DataType]]:
        """The fields with a value that is no list or object, and the type that fits all their values.

        bool, int64, uint64 (hashes), float64 where no whole number is lost by it, else string: JSON's own spelling.
        """
        for name, kinds in sorted(self._seen.items()):
            if name and kinds != {"nested"}:
                yield name, _type_of(kinds)


def fitted(value: Any, kind: pa.DataType) -> Any:
    """A value as its field's type."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return float(value) if pa.types.is_floating(kind) else value


def _kinds(value: Any) -> set[str]:
    if value is None:
        return set()
    if isinstance(value, bool):
        return {"bool"}
    if isinstance(value, int):
        kinds = {"int"} | ({"negative"} if value < 0 else set())
        beyond = {"inexact": _EXACT_IN_FLOAT, "unsigned": 2**63 - 1, "long": 2**64 - 1}
        return kinds | {kind for kind, most in beyond.items() if (value if value > 0 else -value - 1) > most}
    if isinstance(value, float):
        return {"float"}
    return {"string"} if isinstance(value, str) else {"nested"}


def _type_of(kinds: set[str]) -> pa.DataType:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds <= {"int", "negative", "inexact"} and kinds:
        return pa.int64()
    if kinds <= {"int", "inexact", "unsigned"} and kinds:
        return pa.uint64()
    if kinds <= {"int", "negative", "float"} and kinds:
        return pa.float64()
    return pa.string()
