"""The views that questions are asked of: what a version's manifest and the store's records list, and nothing else.

samples    one row per key of the version's source snapshot
curated    the rows of the shards, embeddings too
funnel, shards, columns    the manifest as tables
parts      the parts of the pool that the version's source snapshot has rows in
runs, evaluations, downloads    the store's own: every run; scores of models; every fetch, which differs from run to run
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curation.analytics.view_columns import FATE_COLUMNS, MEANINGS, TABLES, VIEWS
from curation.fetch.ledger import LEDGER
from curation.storage import layout
from curation.storage.store import Store
from curation.versions import Chosen, names, read_runs
from schemas.evaluations import read_scores

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
}


class Views:
    """Makes views on a connection, and remembers which files they read and what their columns mean.

    Files are named by their whole paths, or relative to `folder`, which DuckDB must then search.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, folder: Path | None = None) -> None:
        self._connection = connection
        self._store = store
        self._folder = folder
        self._meanings: dict[tuple[str, str], Mapping[str, str]] = {}  # (schema, view) → column → meaning
        self.files: list[str] = []

    def add_version(self, chosen: Chosen, schema: str = "main") -> None:
        """The views of one version, in a schema."""
        manifest = chosen.manifest
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        for view, entries in (("funnel", manifest.funnel), ("shards", manifest.shards), ("columns", manifest.columns)):
            rows = [{"number": place} | entry.model_dump() for place, entry in enumerate(entries)]
            self._add_table(schema, view, rows)
        self._add_table(schema, "parts", _part_rows(self._store, chosen))
        meanings = {column.name: column.meaning for column in manifest.columns}
        meanings |= {column.name: column.meaning for column in FATE_COLUMNS}
        for view, files in (("samples", manifest.samples), ("curated", manifest.shards)):
            if files:
                self._add_files(schema, view, "SELECT * FROM", [chosen.folder / file.parquet for file in files])
            else:  # nothing was curated: there is no shard to take columns from
                self._connection.execute(
                    f"CREATE VIEW {_quoted(schema, view)} AS FROM {_quoted(schema, 'samples')} WHERE false"
                )
            self._meanings[schema, view] = meanings

    def add_runs(self) -> None:
        """The view of all runs."""
        rows = [
            asdict(run) | {"finished_at": run.finished_at and datetime.fromtimestamp(run.finished_at, UTC)}
            for run in read_runs(self._store)
        ]
        self._add_table("main", "runs", rows)

    def add_evaluations(self, read: bool) -> None:
        """The view of all scores that were noted beside the store's sets; empty where they are not to be read."""
        rows = [
            {"name": name, "evaluated_at": datetime.fromtimestamp(row.pop("at"), UTC)} | row
            for name in (names(self._store) if read else ())
            for row in read_scores(self._store.path(layout.curated(name, "")))
        ]
        self._add_table("main", "evaluations", rows)

    def add_downloads(self, ledgers: Sequence[str]) -> None:
        """The view of all fetches that these files of the store tell of; there may be none."""
        types = {field.name: _SQL_TYPES[field.type] for field in LEDGER}
        none = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
        if ledgers:
            columns = ", ".join(f"CAST({_quoted(name)} AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
            # Ledgers of older programs lack columns; all of them may.
            select = f"SELECT {columns} FROM (SELECT {none} WHERE false UNION ALL BY NAME SELECT * FROM"
            files = [self._store.path(name) for name in ledgers]
            self._add_files("main", "downloads", select, files, ", union_by_name = true", ")")
        else:
            self._connection.execute(f"CREATE VIEW downloads AS SELECT {none} WHERE false")
            self._meanings["main", "downloads"] = MEANINGS["downloads"]

    def explain(self) -> None:
        """Say what views and columns mean, as comments that DuckDB shows."""
        tables = "SELECT schema_name, view_name, 'VIEW' FROM duckdb_views() WHERE NOT internal UNION ALL "
        tables += "SELECT schema_name, table_name, 'TABLE' FROM duckdb_tables() WHERE NOT internal"
        for schema, view, kind in self._connection.execute(tables).fetchall():
            self._connection.execute(f"COMMENT ON {kind} {_quoted(schema, view)} IS {_text(VIEWS[view])}")
        columns = "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        for schema, view, column in self._connection.execute(columns).fetchall():
            meaning = self._meanings[schema, view].get(column)
            if meaning:
                self._connection.execute(f"COMMENT ON COLUMN {_quoted(schema, view, column)} IS {_text(meaning)}")

    def _add_files(
        self, schema: str, view: str, select: str, files: Sequence[Path], options: str = "", end: str = ""
    ) -> None:
        named = [str(file) if self._folder is None else os.path.relpath(file, self._folder) for file in files]
        self.files += named
        listed = ", ".join(_text(file) for file in named)
        made = f"{select} read_parquet([{listed}]{options}){end}"
        self._connection.execute(f"CREATE VIEW {_quoted(schema, view)} AS {made}")
        self._meanings[schema, view] = MEANINGS.get(view, {})

    def _add_table(self, schema: str, view: str, rows: list[dict[str, Any]]) -> None:
        """Rows of records as a table, in their order."""
        self._connection.register("arrived", pa.Table.from_pylist(rows, schema=TABLES[view]))
        self._connection.execute(f"CREATE TABLE {_quoted(schema, view)} AS FROM arrived")
        self._connection.unregister("arrived")
        self._meanings[schema, view] = MEANINGS[view]


def ledger_files(store: Store, chosen: Chosen) -> list[str]:
    """The ledgers of a version's fetches, by the records of the plans that made it; relative to the store."""
    label = (chosen.manifest.name, chosen.manifest.version)
    plans = {run.plan: None for run in read_runs(store) if (run.name, run.version) == label}
    return list({name: None for plan in plans for name in store.get(layout.plan(plan, "ledgers")) or ()})


def _part_rows(store: Store, chosen: Chosen) -> list[dict[str, Any]]:
    """The parts of a version's source snapshot by the store's record of it; none where a version came without."""
    lineage = chosen.manifest.lineage
    snapshot = store.get(layout.snapshot(lineage.snapshot)) if lineage else None
    return [
        {"number": place, "part": member["part"]["name"], "rows": member["part"]["rows"], "members": member["members"]}
        | {"bytes": member["part"]["file"]["bytes"], "file": member["part"]["file"]["name"]}
        for place, member in enumerate(snapshot["parts"] if snapshot else ())
    ]


def _quoted(*names: str) -> str:
    """A quoted identifier, qualified where there are several names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
