"""Which rows a selection keeps, how many each bar has of them, and the selection as SQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from curation.analytics.explorer.counting import cross_counts, failed_by, note_failed
from curation.analytics.explorer.facets import Category, Signal
from curation.analytics.explorer.predicate import require_predicate
from curation.analytics.explorer.table import LOADED, LOWERED, Table
from curation.analytics.explorer.wishes import Selection
from curation.sql_expression import quoted, used_columns
from schemas import columns as c
from schemas.errors import InputError

_KEPT = "kept"


@dataclass(frozen=True)
class Chosen:
    """The rows of a selection as bool_N, how many they are, and rows per facet and slot when all other filters hold."""

    kept_N: np.ndarray
    rows: int
    counts_FS: np.ndarray


class Selector:
    """Answers selections over one table; what was computed lately is remembered."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._of_words = lru_cache(4)(self._words)
        self._of_sql = lru_cache(4)(self._sql)
        self._of_range = lru_cache(8)(lambda name, low, high: table.signal(name).within(low, high))
        self._of_values = lru_cache(8)(lambda name, labels: table.category(name).among(labels))
        self._chosen = lru_cache(4)(lambda text: self._choose(Selection.model_validate_json(text)))

    def choose(self, selection: Selection) -> Chosen:
        """The rows of a selection. Raises InputError with what is wrong with it."""
        return self._chosen(selection.model_dump_json())

    def _choose(self, selection: Selection) -> Chosen:
        table = self._table
        within_N = None
        if selection.words.strip():
            within_N = self._of_words(" ".join(selection.words.split()))
        if selection.sql.strip():
            found_N = self._of_sql(selection.sql)
            within_N = found_N if within_N is None else within_N & found_N
        failed_N = failed_by(within_N, table.rows)
        places = {name: place for place, name in enumerate(table.facets)}
        for name, kept_N in self._filters(selection):
            note_failed(failed_N, kept_N, places[name])
        counts_FS = cross_counts(table.code_FN, failed_N)
        kept_N = failed_N == 0
        return Chosen(kept_N, int(np.count_nonzero(kept_N)), counts_FS)

    def _filters(self, selection: Selection) -> Iterator[tuple[str, np.ndarray]]:
        for name, (low, high) in selection.ranges.items():
            if low is not None or high is not None:
                yield name, self._of_range(name, low, high)
        for name, labels in selection.values.items():
            yield name, self._of_values(name, labels)

    def _words(self, words: str) -> np.ndarray:
        """Which captions hold all words, whatever their case, bool_N."""
        found = " AND ".join(f"contains(caption, lower(${place + 1}))" for place in range(len(words.split())))
        return self._where(LOWERED, found, words.split())

    def _sql(self, text: str) -> np.ndarray:
        """For which rows a predicate is true, bool_N; bound as `keep` binds it, but it may ask about fates, too."""
        require_predicate(self._table, text)
        loaded = used_columns(text, self._table.types) <= set(self._table.loaded)
        return self._where(LOADED if loaded else "samples", f"(\n{text}\n)", [])

    def _where(self, view: str, condition: str, values: list[str]) -> np.ndarray:
        kept_N = np.zeros(self._table.rows, np.bool_)
        with self._table.asked() as connection:
            if view != "samples":
                found = connection.execute(f"SELECT rowid AS row FROM {view} WHERE {condition}", values).fetchnumpy()
                kept_N[found["row"]] = True
            else:  # rows of files have no number of their own, but DuckDB hands them out in their order
                text = f"SELECT coalesce({condition}, false) AS {_KEPT} FROM {view}"
                kept_N[:] = connection.execute(text, values).fetchnumpy()[_KEPT]
        return kept_N


def conditions(table: Table, selection: Selection) -> list[str]:
    """The filters of a selection as SQL predicates."""
    found = []
    for name, (low, high) in selection.ranges.items():
        if low is not None or high is not None:
            found.append(range_sql(table.signal(name), low, high))
    for name, labels in selection.values.items():
        found.append(_values_sql(table.category(name), labels))
    with table.asked() as connection:  # in DuckDB's lower case, which is not Python's for every letter
        words = connection.execute(
            "SELECT lower(word) FROM (SELECT unnest($1::VARCHAR[]) AS word)", [selection.words.split()]
        )
        found += [f"contains(lower({c.CAPTION.name}), {_text(word)})" for (word,) in words.fetchall()]
    if selection.sql.strip():
        found.append(f"({selection.sql.strip()})" if found else selection.sql.strip())
    return found


def range_sql(signal: Signal, low: float | None, high: float | None) -> str:
    """Bounds of a signal as an SQL predicate; without any, those of all rows that have a value. Raises InputError."""
    name = column_sql(signal.name)
    if low is not None and high is not None:
        return f"{name} BETWEEN {number(low)} AND {number(high)}"
    if low is None and high is None:
        return f"{name} IS NOT NULL"
    return f"{name} >= {number(low)}" if low is not None else f"{name} <= {number(high or 0.0)}"


def number(value: float) -> str:
    """A number as a decimal without an exponent, which DuckDB would take for a DOUBLE."""
    return np.format_float_positional(value, trim="-")


def _values_sql(category: Category, labels: tuple[str | None, ...]) -> str:
    name, known = column_sql(category.name), [label for label in labels if label is not None]
    found = [f"{name} IN ({', '.join(map(_text, known))})"] if known else []
    if None in labels:
        found.append(f"{name} IS NULL")
    return " OR ".join(found) if len(found) < 2 else f"({' OR '.join(found)})"


def column_sql(name: str) -> str:
    """A column's name as SQL, quoted only where it must be."""
    try:
        plain = name.isascii() and name.isidentifier() and used_columns(name, [name]) == {name}
    except InputError:
        plain = False
    return name if plain else quoted(name)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
