"""The wide table of a version: every row of the source snapshot with its scalar signals and its fate, sorted by key.

A value is NULL where the row was not alive at its step, whatever the store knows of it from other runs: the table
depends on the plan and the source alone. Of a forgotten row it has nothing but the key and the fate.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.execution.worker import ALIVE, FIRST_STEP, FORGOTTEN, NOT_MEMBER
from curation.fates import Fates
from curation.forget.at_source import blanked, forgotten_rejected
from curation.forget.tombstones import FORGET, tombstones_of
from curation.forget.tombstones import REASON as FORGOTTEN_REASON
from curation.ingest import REASON, Member, Snapshot
from curation.operator import OK
from curation.part_rows import PartRows
from curation.stage import OperatorStep, Plan, SelectionStep, Where
from curation.storage.out_of_core import in_order
from curation.storage.sidecars import ERROR, STATUS
from curation.storage.store import FileRef, Store
from curation.storage.tables import parquet_writer, read_table
from schemas import columns as c

SAMPLES_GROUP_ROWS = 40_000  # of smaller groups DuckDB spends more on their number than on their values
_GROUPS_PER_FILE = 25
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
    files = []
    batches = _batches(store, plan, snapshot, fates, columns, schema)
    tables = enumerate(in_order(store, schema, batches, c.KEY.name, itertools.repeat(SAMPLES_GROUP_ROWS)))
    for _, group in itertools.groupby(tables, key=lambda pair: pair[0] // _GROUPS_PER_FILE):
        files.append(_write_file(store, schema, (table for _, table in group)))
    return files or [_write_file(store, schema, iter([schema.empty_table()]))]


def _write_file(store: Store, schema: pa.Schema, tables: Iterator[pa.Table]) -> tuple[FileRef, int]:
    rows = 0
    with store.new_file(".parquet") as file, parquet_writer(file.path, schema) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=SAMPLES_GROUP_ROWS)
            rows += table.num_rows
    return file.ref, rows


def _batches(
    store: Store, plan: Plan, snapshot: Snapshot, fates: Fates, columns: dict[str, Where], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for member in snapshot.parts:
        table = _part_table(PartRows(store, plan, member, fates.marks.get(member.part.name)), member, fates, columns)
        yield from table.cast(schema).combine_chunks().to_batches()
    yield from _rejected(store, plan, snapshot, schema).to_batches()


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
    table = blanked(pa.table(masked), codes == FORGOTTEN, {c.KEY.name})
    return pa.table(
        dict(zip(table.column_names, table.columns, strict=True)) | _fate_columns(rows, fates, codes, chosen)
    )


def _fate_columns(rows: PartRows, fates: Fates, codes: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Fate, step, reason and duplicate_of of the chosen rows by their codes."""
    outcomes = [("curated", "", ""), ("failed", "source", NO_URL)]  # by code; ALIVE and AT_SOURCE are the first two
    failed: list[tuple[np.ndarray, list[str]]] = []
    for step in rows.plan.steps:
        if isinstance(step, SelectionStep):
            outcomes.append(("dropped", step.label, fates.reasons.get(step.index, "")))
        else:
            outcomes.append(("failed", step.label, ""))
            here = np.flatnonzero(codes == FIRST_STEP + step.index)
            if len(here):
                failed.append((here, _why_failed(rows, step, chosen[here])))
    outcomes.append(("dropped", FORGET, FORGOTTEN_REASON))
    at = pa.array(np.where(codes == FORGOTTEN, len(outcomes) - 1, codes))
    fate, label, reason = (pa.array(said, pa.string()).take(at) for said in zip(*outcomes, strict=True))
    for here, said in failed:
        mask = np.zeros(len(codes), bool)
        mask[here] = True
        reason = pc.replace_with_mask(reason, pa.array(mask), pa.array(said, pa.string()))
    duplicate_of, own_reason = fates.noted(rows.name, chosen)
    names = (c.FATE.name, c.FATE_STEP.name, c.FATE_REASON.name, c.DUPLICATE_OF.name)
    return dict(zip(names, (fate, label, pc.coalesce(own_reason, reason), duplicate_of), strict=True))


def _why_failed(rows: PartRows, step: OperatorStep, here: np.ndarray) -> list[str]:
    """`status: error` of rows that failed at an operator; rows that it never came to were given up."""
    outcome = rows.operator(step.index).columns([STATUS, ERROR]).take(pa.array(here))
    said = zip(outcome[STATUS].to_pylist(), outcome[ERROR].to_pylist(), strict=True)
    return [
        f"{status}: {error}" if status not in (None, OK) else "given_up: failed by decision" for status, error in said
    ]


def _rejected(store: Store, plan: Plan, snapshot: Snapshot, schema: pa.Schema) -> pa.Table:
    """The rows that failed at the source, NULL in all that steps add."""
    table = read_table(store, snapshot.rejected)
    table = blanked(table, forgotten_rejected(tombstones_of(store, plan.tombstones), table), {c.KEY.name, REASON})
    count = table.num_rows
    known = {name: table[name] for name in table.column_names if name != REASON}
    known |= {
        c.FATE.name: pa.array(["failed"] * count, pa.string()),
        c.FATE_STEP.name: pa.array(["source"] * count, pa.string()),
        c.FATE_REASON.name: table[REASON],
    }
    columns = [known[f.name] if f.name in known else pa.nulls(count, f.type) for f in schema]
    return pa.table(columns, schema=schema)
