"""The current selection to take away: its keys as a file, and as a step of a specification."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.analytics.explorer.predicate import require_predicate
from curation.analytics.explorer.selecting import conditions
from curation.analytics.explorer.table import LOADED, Table
from curation.analytics.explorer.thresholds import as_step
from curation.analytics.explorer.wishes import Selection
from curation.storage.tables import parquet_writer
from schemas.columns import KEY
from schemas.errors import InputError

FILE = "keys.parquet"
_KEYS = f"SELECT {LOADED}.key FROM {LOADED} JOIN chosen ON {LOADED}.rowid = chosen.row ORDER BY chosen.row"
_BATCH_ROWS = 100_000
_SCHEMA = pa.schema([KEY.field])


def keys_file(table: Table, kept_N: np.ndarray, suffix: str) -> Path:
    """The keys of the rows in a temporary file that the caller removes: `.parquet`, or `.txt` with one on each line."""
    with tempfile.NamedTemporaryFile(prefix="pairmill-keys-", suffix=suffix, delete=False) as file:
        path = Path(file.name)
    chosen = pa.table({"row": np.flatnonzero(kept_N)})
    with contextlib.ExitStack() as unless_written, table.asked() as connection:
        unless_written.callback(path.unlink)
        connection.register("chosen", chosen)
        try:
            keys = connection.sql(_KEYS)
            _write(keys.to_arrow_reader(_BATCH_ROWS), path)
        finally:
            connection.unregister("chosen")
        unless_written.pop_all()
    return path


def _write(batches: pa.RecordBatchReader, path: Path) -> None:
    if path.suffix == ".txt":
        with open(path, "w", encoding="ascii", newline="\n") as stream:
            for batch in batches:
                stream.writelines(f"{key}\n" for key in batch.column(0).to_pylist())
        return
    with parquet_writer(path, _SCHEMA) as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(_SCHEMA))


def steps(table: Table, selection: Selection) -> dict[str, Any]:
    """The selection as steps: `keep` with its SQL, or why it cannot be one; `join` with the list of keys."""
    join = f"- join: {{table: {FILE}, on: {KEY.name}, keep_only: true}}\n"
    found = conditions(table, selection)
    if not found:
        return {"keep": None, "why": "nothing is filtered: a step would keep every row", "join": join}
    text = " AND ".join(found)
    try:
        require_predicate(table, text, in_step=True)
    except InputError as error:
        return {"keep": None, "why": f"no step can say this ({error}); take the list of keys instead", "join": join}
    return {"keep": as_step({"keep": text}), "why": "", "join": join}
