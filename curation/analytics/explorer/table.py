"""A version's scalar columns in memory: what the page filters, counts and sorts, loaded once when it is opened.

N: rows; F: facets. Captions, keys, signals and categories lie in a table of DuckDB for questions in SQL; signals and
categories lie in arrays beside it. Addresses, reasons and whatever else a row has are read from the version's files.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curation.analytics.explain import SOURCE
from curation.analytics.explorer.facets import Category, Signal, category, signal
from curation.analytics.limits import Limits, within
from curation.analytics.query import connect
from curation.sql_expression import quoted
from curation.storage.store import Store
from curation.versions import Chosen
from schemas import columns as c
from schemas.errors import InputError

LOADED, LOWERED = "loaded", "lowered"  # tables of DuckDB; a row has one number in both
_ROW_NUMBER = "rowid"  # as DuckDB calls it; a column of that name would hide it
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE")
_MOST_LABELS, _FEW = 1000, 20
_FATE = (c.FATE.name, c.FATE_STEP.name)
_ALWAYS = (c.KEY.name, c.CAPTION.name, *_FATE)
_OF_ONE_ROW = {c.KEY.name, c.CAPTION.name, c.URL.name, c.DUPLICATE_OF.name}
_PATIENCE_S = 0.1
_MOST_FACETS = 30  # a bit each, and one for other filters


@dataclass
class Table:
    """The rows of one version. `step_N` is the place of the funnel's step where a row ended; the curated come last."""

    store: Store
    chosen: Chosen
    limits: Limits
    rows: int
    types: dict[str, pa.DataType]  # of all columns of samples
    loaded: tuple[str, ...]
    facets: dict[str, Signal | Category]
    code_FN: np.ndarray
    step_N: np.ndarray
    _connection: duckdb.DuckDBPyConnection
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def steps(self) -> list[str]:
        """The names of the funnel's steps; the first is the source."""
        return [entry.step for entry in self.chosen.manifest.funnel]

    @property
    def is_gone(self) -> bool:
        """Whether files of the version are no longer there."""
        return not all((self.chosen.folder / sample.parquet).exists() for sample in self.chosen.manifest.samples)

    def signal(self, name: str) -> Signal:
        """The signal of that name. Raises InputError."""
        found = self.facets.get(name)
        if not isinstance(found, Signal):
            names = ", ".join(n for n, facet in self.facets.items() if isinstance(facet, Signal))
            raise InputError(f"{name}: is no signal here; there are {names or 'none'}")
        return found

    def category(self, name: str) -> Category:
        """The category of that name. Raises InputError."""
        found = self.facets.get(name)
        if not isinstance(found, Category):
            names = ", ".join(n for n, facet in self.facets.items() if isinstance(facet, Category))
            raise InputError(f"{name}: is no column of few values here; there are {names or 'none'}")
        return found

    @contextlib.contextmanager
    def asked(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection, for one question at a time, within the limits. DuckDB's errors become InputError."""
        with self._asking, within(self.limits, self._connection):
            yield self._connection

    def records(self, positions: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """The loaded columns of rows, in the order asked for."""
        wanted = [int(position) for position in positions]
        shown = ", ".join(f"{LOADED}.{quoted(name)}" for name in self.loaded)
        # A join, because DuckDB holds a list in IN against every row.
        text = (
            f"SELECT {LOADED}.rowid, {shown} FROM {LOADED} "
            f"JOIN (SELECT unnest($1::BIGINT[]) AS row) AS asked ON {LOADED}.rowid = asked.row"
        )
        with self.asked() as connection:
            found = connection.execute(text, [wanted]).fetchall()
        by_position = {position: dict(zip(self.loaded, row, strict=True)) for position, *row in found}
        return [by_position[position] for position in wanted]

    def positions(self, keys: Sequence[str]) -> dict[str, int]:
        """The row number of each key that the version has."""
        with self.asked() as connection:
            found = connection.execute(
                f"SELECT {LOADED}.key, {LOADED}.rowid FROM {LOADED} "
                f"JOIN (SELECT unnest($1::VARCHAR[]) AS key) AS asked ON {LOADED}.key = asked.key",
                [list(keys)],
            )
            return dict(found.fetchall())

    def close(self) -> None:
        """Close the connection; a question that is still being answered is given up: its thread must not outlive it."""
        while not self._asking.acquire(timeout=_PATIENCE_S):
            self._connection.interrupt()
        self._connection.close()
        self._asking.release()
        del self._connection  # what is remembered of answers may outlive it


def load(store: Store, chosen: Chosen, limits: Limits) -> Table:
    """Load a version's rows. Raises InputError where they need more memory than is allowed."""
    manifest = chosen.manifest
    try:
        connection = connect(
            store.root, manifest.name, manifest.version, downloads=False, evaluations=False, limits=limits
        )
        with contextlib.ExitStack() as unless_loaded:
            unless_loaded.callback(connection.close)
            table = _loaded(store, chosen, limits, connection)
            unless_loaded.pop_all()
        return table
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise InputError(
            f"{chosen.label}: its {manifest.pool:,} rows need more than {limits.memory_gb:g} GB of memory here; "
            "allow more: --memory-limit"
        ) from error


def _loaded(store: Store, chosen: Chosen, limits: Limits, connection: duckdb.DuckDBPyConnection) -> Table:
    described = connection.sql("DESCRIBE samples").fetchall()
    kinds = {name: str(kind) for name, kind, *_ in described if name.lower() != _ROW_NUMBER}
    types = {f.name: f.type for f in connection.sql("FROM samples LIMIT 0").to_arrow_table().schema}
    numbers = [name for name, kind in kinds.items() if kind in _NUMBERS or kind.startswith("DECIMAL")]
    texts = [name for name, kind in kinds.items() if kind in ("VARCHAR", "BOOLEAN") and name not in _OF_ONE_ROW]
    few = _of_few_values(connection, texts)
    names = [name for name in kinds if name in {*_ALWAYS, *few, *numbers}]
    shown = ", ".join(map(quoted, names))
    connection.execute(f"CREATE TABLE {LOADED} AS SELECT {shown} FROM samples")
    connection.execute(f"CREATE TABLE {LOWERED} AS SELECT lower({c.CAPTION.name}) AS caption FROM {LOADED}")
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {LOADED}").fetchall()
    facets: dict[str, Signal | Category] = {}
    code_FN = np.empty((min(len(few) + len(numbers), _MOST_FACETS), rows), np.uint16)
    for name in _by_interest([*numbers, *few], chosen)[:_MOST_FACETS]:
        code_N = code_FN[len(facets)]
        found = (
            category(name, few[name], _groups(connection, name, few[name]), code_N)
            if name in few
            else signal(name, _column(connection, _as_number(name, kinds[name])), code_N)
        )
        if found is not None:
            facets[name] = found
    step_N = _steps(connection, [entry.step for entry in chosen.manifest.funnel])
    return Table(store, chosen, limits, rows, types, tuple(names), facets, code_FN[: len(facets)], step_N, connection)


def _by_interest(names: Sequence[str], chosen: Chosen) -> list[str]:
    """Fates first, what `top` ranks by, then what steps have added: sources bring more columns than there is room."""
    added = {column.name for column in chosen.manifest.columns if column.step != SOURCE}
    given = [step.get("parameters") for step in chosen.manifest.spec.get("steps", [])]
    ranked = {str(one.get(name)) for one in given if isinstance(one, dict) for name in ("by", "per")}
    return sorted(names, key=lambda name: (name not in _FATE, name not in ranked, name not in added))


def _as_number(name: str, kind: str) -> str:
    return f"CAST({quoted(name)} AS DOUBLE)" if kind.startswith("DECIMAL") else quoted(name)


def _of_few_values(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, list[str]]:
    """The values of columns that have some but few, the most frequent first; booleans as `true` and `false`."""
    counts = "".join(f", approx_count_distinct({quoted(name)})" for name in names)
    ((rows, *sizes),) = connection.execute(f"SELECT count(*){counts} FROM samples").fetchall()
    most = min(_MOST_LABELS, max(_FEW, rows // 20))
    found = {}
    for name, size in zip(names, sizes, strict=True):
        if size <= 1.2 * most:
            values = (
                f"(SELECT CAST({quoted(name)} AS VARCHAR) AS label FROM samples)"  # apart: a column may be called so
            )
            text = f"SELECT label FROM {values} WHERE label IS NOT NULL GROUP BY label ORDER BY count(*) DESC, label"
            labels = connection.execute(text).fetchall()
            if 2 <= len(labels) <= most:
                found[name] = [label for (label,) in labels]
    return found


def _groups(connection: duckdb.DuckDBPyConnection, name: str, labels: Sequence[str]) -> np.ndarray:
    """The number of each row's label, NULL the last, uint16_N."""
    listed = ", ".join("'" + label.replace("'", "''") + "'" for label in labels)
    found = _column(connection, f"enum_code(CAST(CAST({quoted(name)} AS VARCHAR) AS ENUM ({listed})))")
    return np.ma.filled(np.ma.asarray(found, np.uint16), len(labels))


def _steps(connection: duckdb.DuckDBPyConnection, steps: Sequence[str]) -> np.ndarray:
    """The place of the step where each row ended, uint16_N; a step that the funnel does not have is the source."""
    found = _column(connection, f"if({c.FATE.name} = 'curated', {len(steps)}, list_position($1, fate_step) - 1)", steps)
    return np.ma.filled(found, 0).astype(np.uint16)


def _column(connection: duckdb.DuckDBPyConnection, expression: str, *values: Any) -> Any:
    """A value of each row, masked where NULL, in the order of the rows."""
    parameters = [list(value) for value in values]
    return connection.execute(f"SELECT {expression} AS value FROM {LOADED}", parameters).fetchnumpy()["value"]
