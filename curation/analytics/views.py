"""The views that questions are asked of: what a version's manifest and the store's records list, and nothing else.

samples    one row per key of the version's source snapshot
curated    the rows of the shards, embeddings too
funnel, shards, columns    the manifest as tables
runs, evaluations, downloads    the store's own: every run; scores of models; every fetch, which differs from run to run
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from curation.fetch.ledger import LEDGER
from curation.storage import layout
from curation.storage.store import Store
from curation.versions import Chosen, names, read_runs
from schemas import columns as c
from schemas.evaluations import read_scores

VIEWS = {
    "samples": "one row per key of the version's source snapshot: its columns, signals and fate, sorted by key",
    "curated": "one row per curated pair as it stands in the shards, embeddings included",
    "funnel": "rows into and out of every step, and why the others did not pass",
    "shards": "one row per shard: files, rows, bytes, digests",
    "columns": "name, type and meaning of the columns of samples and curated",
    "runs": "every run on this store, in the order they started",
    "evaluations": "one row per score of a model that was trained on a set of this store, in the order of time",
    "downloads": "one row per URL and time that it was wanted: status, host, attempts, when, seconds, bytes",
}
OF_STORE = {"runs", "evaluations"}  # the others are of one version
_FATE_COLUMNS = (c.FATE, c.FATE_STEP, c.FATE_REASON, c.DUPLICATE_OF)
_MEANINGS = {
    "runs": {
        "number": "place in the order of start",
        "name": "the data set",
        "plan": "the plan that was run",
        "version": "the version it made; NULL where the run has not finished",
        "finished_at": "when it finished, UTC; NULL where it has not",
    },
    "evaluations": {
        "name": "the data set that the model was trained on",
        "version": "and which version of it",
        "training": "the training's name",
        "model": "folder of the model",
        "step": "the training's step at which the model was; NULL where nobody knows",
        "evaluation": "what the scores stand under in the specification",
        "class": "the class or group that the score is of, such as `blue` or `split testA`; NULL for all",
        "metric": "what was measured: top1, mean_per_class_recall, image_to_text_recall@1 …",
        "value": "the score; shares from 0 to 1",
        "evaluated_at": "when, UTC",
    },
    "downloads": {
        "key": "key of the first row that wanted the URL",
        "url": "the address that was asked for",
        "host": "the host that answered last",
        "status": "what became of it: ok, or the class of failure",
        "http_status": "HTTP status of the last answer",
        "attempts": "how often it was asked for; 0 where its status says why it was not",
        "fetched_at": "when this was known, UTC",
        "seconds": "time in transfer, all attempts together",
        "fetched_bytes": "length of what was fetched",
        "content_type": "type that the host claimed",
        "redirects": "redirects of the last attempt",
    },
    "funnel": {
        "number": "place of the step; 0 is the source",
        "rows_in": "rows alive before the step",
        "rows_out": "rows alive after it",
        "reason": "why the others did not pass",
    },
    "shards": {"holdout": "whether the shard is held out for evaluation"},
}
_NUMBER, _NAME, _COUNT = pa.int32(), pa.string(), pa.int64()
_TABLES = {
    "funnel": pa.schema(
        {"number": _NUMBER, "step": _NAME, "kind": _NAME, "rows_in": _COUNT, "rows_out": _COUNT, "reason": _NAME}
    ),
    "shards": pa.schema(
        {"number": _NUMBER, "tar": _NAME, "parquet": _NAME, "rows": _COUNT, "tar_bytes": _COUNT}
        | {"parquet_bytes": _COUNT, "tar_sha256": _NAME, "parquet_sha256": _NAME, "holdout": pa.bool_()}
    ),
    "columns": pa.schema(
        {"number": _NUMBER, "name": _NAME, "type": _NAME, "meaning": _NAME, "step": _NAME, "in_shards": pa.bool_()}
    ),
    "runs": pa.schema(
        {"number": _NUMBER, "name": _NAME, "plan": _NAME, "version": _NAME, "finished_at": pa.timestamp("us")}
    ),
    "evaluations": pa.schema(
        {"name": _NAME, "version": _NAME, "training": _NAME, "model": _NAME, "step": _COUNT, "evaluation": _NAME}
        | {"class": _NAME, "metric": _NAME, "value": pa.float64(), "evaluated_at": pa.timestamp("us")}
    ),
}
_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
}


class Views:
    """Makes views on a connection, and remembers which files they read and what their columns mean."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self._meanings: dict[tuple[str, str], Mapping[str, str]] = {}  # (schema, view) → column → meaning
        self.files: list[str] = []

    def add_version(self, chosen: Chosen, schema: str = "main") -> None:
        """The views of one version, in a schema."""
        manifest = chosen.manifest
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        for view, entries in (("funnel", manifest.funnel), ("shards", manifest.shards), ("columns", manifest.columns)):
            rows = [{"number": place} | entry.model_dump() for place, entry in enumerate(entries)]
            self._add_table(schema, view, rows)
        meanings = {column.name: column.meaning for column in manifest.columns}
        meanings |= {column.name: column.meaning for column in _FATE_COLUMNS}
        for view, files in (("samples", manifest.samples), ("curated", manifest.shards)):
            if files:
                self._add_files(schema, view, "SELECT * FROM", [str(chosen.folder / file.parquet) for file in files])
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

    def add_downloads(self, chosen: Chosen | None) -> None:
        """The view of all fetches of a version's rows; without a version it is empty."""
        types = {field.name: _SQL_TYPES[field.type] for field in LEDGER}
        files = ledger_files(self._store, chosen) if chosen else []
        none = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
        if files:
            columns = ", ".join(f"CAST({_quoted(name)} AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
            # Ledgers of older programs lack columns; all of them may.
            select = f"SELECT {columns} FROM (SELECT {none} WHERE false UNION ALL BY NAME SELECT * FROM"
            self._add_files("main", "downloads", select, files, ", union_by_name = true", ")")
        else:
            self._connection.execute(f"CREATE VIEW downloads AS SELECT {none} WHERE false")
            self._meanings["main", "downloads"] = _MEANINGS["downloads"]

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
        self, schema: str, view: str, select: str, files: Sequence[str], options: str = "", end: str = ""
    ) -> None:
        self.files += files
        listed = ", ".join(_text(file) for file in files)
        made = f"{select} read_parquet([{listed}]{options}){end}"
        self._connection.execute(f"CREATE VIEW {_quoted(schema, view)} AS {made}")
        self._meanings[schema, view] = _MEANINGS.get(view, {})

    def _add_table(self, schema: str, view: str, rows: list[dict[str, Any]]) -> None:
        """Rows of records as a table in memory, in their order."""
        self._connection.register("arrived", pa.Table.from_pylist(rows, schema=_TABLES[view]))
        self._connection.execute(f"CREATE TABLE {_quoted(schema, view)} AS FROM arrived")
        self._connection.unregister("arrived")
        self._meanings[schema, view] = _MEANINGS.get(view, {})


def ledger_files(store: Store, chosen: Chosen) -> list[str]:
    """The ledgers of a version's fetches, by the records of the plans that made it."""
    label = (chosen.manifest.name, chosen.manifest.version)
    plans = {run.plan: None for run in read_runs(store) if (run.name, run.version) == label}
    names = {name: None for plan in plans for name in store.get(layout.plan(plan, "ledgers")) or ()}
    return [str(store.path(name)) for name in names]


def _quoted(*names: str) -> str:
    """A quoted identifier, qualified where there are several names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
