"""The views that questions are asked of: what a version's manifest and the store's records list, and nothing else.

samples    one row per key of the version's source snapshot
curated    the rows of the shards, embeddings too, with shard and position
funnel, shards, columns    the manifest as tables
runs, downloads            the store's own: every run; every fetch, with what differs from run to run
"""

from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from curation.fetch.ledger import LEDGER
from curation.storage import sidecars
from curation.storage.pool import read_pool
from curation.storage.store import Store
from curation.versions import Chosen, read_runs
from schemas import columns as c

VIEWS = {
    "samples": "one row per key of the version's source snapshot: its columns, signals and fate, sorted by key",
    "curated": "one row per curated pair as it stands in the shards, embeddings included",
    "funnel": "rows into and out of every step, and why the others did not pass",
    "shards": "one row per shard: files, rows, bytes, digests",
    "columns": "name, type and meaning of the columns of samples and curated",
    "runs": "every run on this store, in the order they started",
    "downloads": "one row per fetched URL: status, host, attempts, seconds, bytes",
}
_FETCHER = "download"
_FATE_COLUMNS = (c.FATE, c.FATE_STEP, c.FATE_REASON, c.DUPLICATE_OF)
_MEANINGS = {
    "runs": {
        "number": "place in the order of start",
        "name": "the data set",
        "plan": "the plan that was run",
        "version": "the version it made; NULL where the run has not finished",
        "finished_at": "when it finished, UTC; NULL where it has not",
    },
    "downloads": {
        "key": "key of the first row that wanted the URL",
        "url": "the address that was asked for",
        "host": "the host that answered last",
        "status": "what became of it: ok, or the class of failure",
        "http_status": "HTTP status of the last answer",
        "attempts": "how often it was asked for",
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
    "curated": {"shard": "number of the shard in the view shards", "position": "place in its shard, from 0"},
}


class Views:
    """Makes views on a connection, and remembers which files they read."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self._connection = connection
        self._store = store
        self.files: list[str] = []

    def add_version(self, chosen: Chosen, schema: str = "main") -> None:
        """The views of one version, in a schema."""
        manifest = chosen.manifest
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        self._add_rows(f"{schema}.funnel", manifest.funnel)
        self._add_rows(f"{schema}.shards", manifest.shards)
        self._add_rows(f"{schema}.columns", manifest.columns)
        samples = [str(chosen.folder / entry.parquet) for entry in manifest.samples]
        self._add_files(f"{schema}.samples", "SELECT * FROM", samples)
        shards = [str(chosen.folder / entry.parquet) for entry in manifest.shards]
        if shards:
            select = "SELECT *, file_index::INTEGER AS shard, file_row_number AS position FROM"
            self._add_files(f"{schema}.curated", select, shards, ", file_row_number = true")
        meanings = {column.name: column.meaning for column in manifest.columns}
        meanings |= {column.name: column.meaning for column in _FATE_COLUMNS}
        for view in ("samples", *(["curated"] if shards else [])):
            self._explain(f"{schema}.{view}", meanings | _MEANINGS.get(view, {}))

    def add_runs(self) -> None:
        """The view of all runs."""
        rows = [(run.number, run.name, run.plan, run.version, run.finished_at) for run in read_runs(self._store)]
        self._connection.execute(
            "CREATE TABLE runs (number INTEGER, name VARCHAR, plan VARCHAR, version VARCHAR, finished_at TIMESTAMP)"
        )
        self._insert("INSERT INTO runs VALUES (?, ?, ?, ?, make_timestamp(CAST(? * 1000000 AS BIGINT)))", rows)
        self._explain("main.runs", _MEANINGS["runs"])

    def add_downloads(self, chosen: Chosen | None) -> None:
        """The view of all fetches of a version's rows; without a version it is empty."""
        types = {field.name: _sql_type(field.type) for field in LEDGER}
        files = ledger_files(self._store, chosen) if chosen else []
        if files:
            columns = ", ".join(f"CAST({_quoted(name)} AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
            self._add_files("main.downloads", f"SELECT {columns} FROM", files, ", union_by_name = true")
        else:
            columns = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in types.items())
            self._connection.execute(f"CREATE VIEW downloads AS SELECT {columns} WHERE false")
        self._explain("main.downloads", _MEANINGS["downloads"])

    def _add_files(self, view: str, select: str, files: Sequence[str], options: str = "") -> None:
        self.files += files
        listed = ", ".join(_text(file) for file in files)
        self._connection.execute(f"CREATE VIEW {_quoted(view)} AS {select} read_parquet([{listed}]{options})")

    def _add_rows(self, name: str, entries: Sequence[Any]) -> None:
        """A table of the manifest's entries, which are pydantic models of one class; lists keep their order."""
        numbered = [{"number": n} | entry.model_dump() for n, entry in enumerate(entries)]
        kind = name.rsplit(".", 1)[1]
        types = {"number": "INTEGER"} | _ENTRY_TYPES[kind]
        columns = ", ".join(f"{_quoted(column)} {sql_type}" for column, sql_type in types.items())
        self._connection.execute(f"CREATE TABLE {_quoted(name)} ({columns})")
        marks = ", ".join("?" * len(types))
        self._insert(f"INSERT INTO {_quoted(name)} VALUES ({marks})", [[row[t] for t in types] for row in numbered])
        self._explain(name, _MEANINGS.get(kind, {}))

    def _insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._connection.executemany(statement, rows)

    def _explain(self, name: str, meanings: dict[str, str]) -> None:
        """What a view and its columns mean, as comments that DuckDB shows."""
        schema, view = name.split(".")
        kind = "VIEW" if view in ("samples", "curated", "downloads") else "TABLE"
        self._connection.execute(f"COMMENT ON {kind} {_quoted(name)} IS {_text(VIEWS[view])}")
        there = self._connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE schema_name = ? AND table_name = ?", [schema, view]
        ).fetchall()
        for (column,) in there:
            if column in meanings:
                self._connection.execute(
                    f"COMMENT ON COLUMN {_quoted(name)}.{_quoted(column, whole=True)} IS {_text(meanings[column])}"
                )


_ENTRY_TYPES = {
    "funnel": {"step": "VARCHAR", "kind": "VARCHAR", "rows_in": "BIGINT", "rows_out": "BIGINT", "reason": "VARCHAR"},
    "shards": {
        "tar": "VARCHAR",
        "parquet": "VARCHAR",
        "rows": "BIGINT",
        "tar_bytes": "BIGINT",
        "parquet_bytes": "BIGINT",
        "tar_sha256": "VARCHAR",
        "parquet_sha256": "VARCHAR",
        "holdout": "BOOLEAN",
    },
    "columns": {"name": "VARCHAR", "type": "VARCHAR", "meaning": "VARCHAR", "step": "VARCHAR"},
}


def ledger_files(store: Store, chosen: Chosen) -> list[str]:
    """The ledgers of a version's downloads, by the commit records of the pool's parts."""
    kinds = {entry.step: entry.kind for entry in chosen.manifest.funnel}
    wanted = [fingerprint for label, fingerprint in chosen.manifest.operators.items() if kinds.get(label) == _FETCHER]
    parts = read_pool(store).parts if wanted else ()
    return [str(store.path(name)) for name in _ledgers(store, [part.name for part in parts], wanted)]


def _ledgers(store: Store, parts: Iterable[str], fingerprints: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for part in parts:
        for fingerprint in fingerprints:
            sidecar = sidecars.latest(store, part, _FETCHER, fingerprint)
            found.update(dict.fromkeys(ref.name for ref in (sidecar.ledgers if sidecar else ())))
    return list(found)


def _sql_type(kind: pa.DataType) -> str:
    names = {pa.string(): "VARCHAR", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT"}
    return names.get(kind, "DOUBLE")


def _quoted(name: str, *, whole: bool = False) -> str:
    """A quoted identifier; dots separate schema and name unless it is one `whole` name."""
    pieces = [name] if whole else name.split(".")
    return ".".join('"' + piece.replace('"', '""') + '"' for piece in pieces)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
