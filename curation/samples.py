"""The wide table of a version: every row of the source snapshot with its scalar signals and its fate, sorted by key.

A value is NULL where the row was not alive at its step, whatever the store knows of it from other runs: the table
depends on the plan and the source alone.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, NOT_MEMBER
from curation.fates import Fates
from curation.ingest import REASON, Member, Snapshot
from curation.part_rows import PartRows
from curation.stage import OperatorStep, Plan, SelectionStep, Where
from curation.storage.sidecars import ERROR, STATUS
from curation.storage.store import FileRef, Store
from curation.storage.tables import ROW_GROUP_ROWS, parquet_writer, read_table
from schemas import columns as c

_GROUPS_PER_FILE = 100
_MEMORY_LIMIT = "1GB"
NO_URL = "the row has no URL"
_FATE_COLUMNS = (c.FATE, c.FATE_STEP, c.FATE_REASON, c.DUPLICATE_OF)


def sample_columns(plan: Plan) -> dict[str, Where]:
    """The columns of the wide table before the fate: all but pictures and embeddings."""
    skipped = {c.IMAGE.name}
    return {n: w for n, w in plan.columns.items() if n not in skipped and w.column.field.metadata is None}


def write_samples(store: Store, plan: Plan, snapshot: Snapshot, fates: Fates) -> list[tuple[FileRef, int]]:
    """Write the table in files of a fixed number of rows; (file, rows) in order."""
    columns = sample_columns(plan)
    fields = [where.column.named(name).field for name, where in columns.items()]
    schema = pa.schema([*fields, *(column.field for column in _FATE_COLUMNS)])
    reader = pa.RecordBatchReader.from_batches(schema, _batches(store, plan, snapshot, fates, columns, schema))
    files = []
    with store.temporary_folder() as folder, duckdb.connect(":memory:") as database:
        database.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        database.execute("SET temp_directory = $folder", {"folder": str(folder)})
        database.register("arrived", reader)
        ordered = database.sql("SELECT * FROM arrived ORDER BY key").to_arrow_reader(ROW_GROUP_ROWS)
        tables = enumerate(_regular(ordered, ROW_GROUP_ROWS))
        for _, group in itertools.groupby(tables, key=lambda pair: pair[0] // _GROUPS_PER_FILE):
            files.append(_write_file(store, schema, (table for _, table in group)))
    return files or [_write_file(store, schema, iter([schema.empty_table()]))]


def _write_file(store: Store, schema: pa.Schema, tables: Iterator[pa.Table]) -> tuple[FileRef, int]:
    rows = 0
    with store.new_file(".parquet") as file, parquet_writer(file.path, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)
            rows += table.num_rows
    return file.ref, rows


def _regular(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows (the last may be smaller): row groups must not depend on DuckDB's batches."""
    pieces: list[pa.Table] = []
    held = 0
    for batch in reader:
        table = pa.Table.from_batches([batch])
        while held + table.num_rows >= rows:
            yield pa.concat_tables([*pieces, table.slice(0, rows - held)]).combine_chunks()
            table, pieces, held = table.slice(rows - held), [], 0
        if table.num_rows:
            pieces.append(table)
            held += table.num_rows
    if pieces:
        yield pa.concat_tables(pieces).combine_chunks()


def _batches(
    store: Store, plan: Plan, snapshot: Snapshot, fates: Fates, columns: dict[str, Where], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for member in snapshot.parts:
        table = _part_table(PartRows(store, plan, member, fates.marks.get(member.part.name)), member, fates, columns)
        yield from table.cast(schema).combine_chunks().to_batches()
    yield from _rejected(store, snapshot, schema).to_batches()


def _part_table(rows: PartRows, member: Member, fates: Fates, columns: dict[str, Where]) -> pa.Table:
    codes = fates.codes[member.part.name]
    chosen = np.flatnonzero(codes != NOT_MEMBER)
    table = rows.table(list(columns), chosen)
    codes = codes[chosen]
    masked: dict[str, Any] = {}
    for name, where in columns.items():
        values = table[name]
        if where.kind in ("sidecar", "mark") and where.step >= 0:
            reached = (codes == ALIVE) | (codes >= FIRST_STEP + where.step)
            values = pc.if_else(pa.array(reached), values, pa.scalar(None, values.type))
        masked[name] = values
    part = member.part.name
    masked |= _fate_columns(rows.plan, fates, codes, masked)
    reason, duplicate_of = masked.pop(c.FATE_REASON.name), np.full(len(chosen), None, object)
    place_of = {int(row): place for place, row in enumerate(chosen)} if fates.notes.get(part) else {}
    for row, note in fates.notes.get(part, {}).items():
        duplicate_of[place_of[row]] = note.duplicate_of
        reason[place_of[row]] = note.reason or reason[place_of[row]]
    masked[c.FATE_REASON.name] = pa.array(reason, pa.string())
    masked[c.DUPLICATE_OF.name] = pa.array(duplicate_of, pa.string())
    return pa.table(masked)


def _fate_columns(plan: Plan, fates: Fates, codes: np.ndarray, table: dict[str, pa.ChunkedArray]) -> dict[str, Any]:
    """Fate, step and reason of rows by their codes; the reason as an object array, for single rows have their own."""
    fate = np.full(len(codes), "", object)
    label = np.full(len(codes), "", object)
    reason = np.full(len(codes), "", object)
    fate[codes == ALIVE] = "curated"
    fate[codes == AT_SOURCE], label[codes == AT_SOURCE] = "failed", "source"
    reason[codes == AT_SOURCE] = NO_URL
    for step in plan.steps:
        here = np.flatnonzero(codes == FIRST_STEP + step.index)
        if not len(here):
            continue
        label[here] = step.label
        if isinstance(step, SelectionStep):
            fate[here], reason[here] = "dropped", fates.reasons.get(step.index, "")
        else:
            fate[here], reason[here] = "failed", _why_failed(plan, step, table, here)
    return {c.FATE.name: fate, c.FATE_STEP.name: label, c.FATE_REASON.name: reason}


def _why_failed(plan: Plan, step: OperatorStep, table: dict[str, pa.ChunkedArray], rows: np.ndarray) -> list[str]:
    """`status: error` of rows that failed at an operator; rows without either were given up."""
    names = {w.name: n for n, w in plan.columns.items() if w.kind == "sidecar" and w.step == step.index}
    if STATUS not in names:
        return ["given_up: failed by decision"] * len(rows)
    status = table[names[STATUS]].take(pa.array(rows)).to_pylist()
    errors = table[names[ERROR]].take(pa.array(rows)).to_pylist()
    return [f"{s}: {e}" if s else "given_up: failed by decision" for s, e in zip(status, errors, strict=True)]


def _rejected(store: Store, snapshot: Snapshot, schema: pa.Schema) -> pa.Table:
    """The rows that failed at the source, NULL in all that steps add."""
    table = read_table(store, snapshot.rejected)
    count = table.num_rows
    known = {name: table[name] for name in table.column_names if name != REASON}
    known |= {
        c.FATE.name: pa.array(["failed"] * count, pa.string()),
        c.FATE_STEP.name: pa.array(["source"] * count, pa.string()),
        c.FATE_REASON.name: table[REASON],
    }
    columns = [known[f.name] if f.name in known else pa.nulls(count, f.type) for f in schema]
    return pa.table(columns, schema=schema)
