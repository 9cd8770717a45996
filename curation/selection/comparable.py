"""Columns of another table in the pool's types: only what compares by value."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.selection.inputs import is_vectors, stored_vectors
from schemas.errors import InputError


def family(kind: pa.DataType) -> Any:
    """Types of one family are compared by value; others only with their own."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    for name in ("integer", "floating", "decimal"):
        if getattr(pa.types, f"is_{name}")(kind):
            return name
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "binary"
    return kind


def in_our_types(theirs: pa.Table, names: Mapping[str, str], ours: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """Columns of another set, by alias, in the pool's types. Raises InputError where that would change values.

    `names` says what each alias stands for.
    """
    found = {}
    for alias, name in names.items():
        wanted, kind = ours[alias], theirs.schema.field(alias).type
        try:
            if family(wanted) != family(kind):
                raise pa.ArrowInvalid("another type")
            found[alias] = theirs[alias].cast(wanted)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"against: column {name!r} is of type {kind} there and of type {wanted} in the pool ({error}); "
                "bring it in the pool's type"
            ) from error
    return found


def as_vectors(theirs: pa.Table, alias: str, name: str) -> dict[str, Any]:
    """A column of another set as stored embeddings. Raises InputError where it holds none."""
    kind = theirs.schema.field(alias).type
    if not is_vectors(kind):
        raise InputError(f"against: column {name!r} is of type {kind} there, and no embedding")
    return {alias: stored_vectors(theirs[alias], name)}
