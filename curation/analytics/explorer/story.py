"""Everything known of one row, and the rows that it stands for or that stands for it."""

from typing import Any

from curation.analytics.answer import json_value
from curation.analytics.explain import explain
from curation.analytics.explorer.table import Table
from schemas.errors import InputError

_MOST_DUPLICATES = 24
_MOST_EXACT = 2**53
_OWN = "SELECT * FROM samples WHERE key = $1"
_GROUP = "SELECT key FROM samples WHERE key = $1 OR duplicate_of = $1 ORDER BY duplicate_of IS NOT NULL, key LIMIT $2"


def story(table: Table, key: str) -> Any:
    """A row's own values, every step that saw it, its duplicates, and what `explain` knows besides.

    Raises InputError for a key that the version does not have.
    """
    with table.asked() as connection:
        found = connection.execute(_OWN, [key])
        names = [column[0] for column in found.description or []]
        row = found.fetchone()
        if row is None:
            raise InputError(f"{key}: {table.chosen.label} has no such key")
        values = {name: json_value(value) for name, value in zip(names, row, strict=True)}
        lead = values.get("duplicate_of") or key
        duplicates = [k for (k,) in connection.execute(_GROUP, [lead, _MOST_DUPLICATES]).fetchall() if k != key]
    told = explain(table.store.root, key, table.chosen.manifest.name)[0]
    answer = {"label": table.chosen.label, "values": values, "duplicates": duplicates, "told": told.record()}
    return exact(answer)


def exact(value: Any) -> Any:
    """JSON values with whole numbers as text where a browser would round them, such as hashes."""
    if isinstance(value, dict):
        return {name: exact(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [exact(each) for each in value]
    return str(value) if isinstance(value, int) and abs(value) > _MOST_EXACT else value
