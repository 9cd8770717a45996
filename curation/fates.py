"""What has become of every row of a snapshot: the state that barriers decide, and its file in the store."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, FORGOTTEN, NOT_MEMBER
from curation.forget.at_source import forgotten_in
from curation.forget.tombstones import tombstones_of
from curation.ingest import Member
from curation.part_rows import PartRows
from curation.selection.step import Decision
from curation.stage import Plan, SelectionStep
from curation.storage.store import FileRef, Store, canonical_json
from curation.storage.tables import put_table, read_table
from schemas import columns as c

# What is known of single dropped rows beyond their step: the key kept instead, a reason of their own.
NOTES = pa.schema([("row", pa.int32()), (c.DUPLICATE_OF.name, pa.string()), ("reason", pa.string())])


@dataclass
class Fates:
    """Per part: int16_N codes (see execution/worker.py), NOTES on single rows, and columns that barriers added."""

    codes: dict[str, np.ndarray]
    notes: dict[str, pa.Table] = field(default_factory=dict)
    marks: dict[str, dict[str, pa.Array]] = field(default_factory=dict)  # part → column → its values in the part
    reasons: dict[int, str] = field(default_factory=dict)  # step index → the reason of its drops
    statuses: dict[int, dict[str, int]] = field(default_factory=dict)  # operator's index → failed rows by status
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)  # step index → what the manifest tells of it

    @property
    def alive(self) -> int:
        """How many rows are alive."""
        return sum(int((codes == ALIVE).sum()) for codes in self.codes.values())

    def alive_rows(self, part: str) -> np.ndarray:
        """Positions of a part's alive rows."""
        return np.flatnonzero(self.codes[part] == ALIVE)

    def counts(self) -> dict[int, int]:
        """How many rows have each code, non-members left out."""
        total: dict[int, int] = {}
        for codes in self.codes.values():
            values, counts = np.unique(codes, return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                total[value] = total.get(value, 0) + count
        total.pop(NOT_MEMBER, None)
        return total

    def apply(self, step: SelectionStep, decision: Decision, places: Sequence[tuple[str, np.ndarray]]) -> None:
        """Drop or mark what a barrier decided; `places` are (part, rows) in the order of the decision's rows."""
        self.reasons[step.index] = decision.reason
        if decision.facts:
            self.facts[step.index] = json.loads(canonical_json(decision.facts))  # as they are read back
        starts = np.cumsum([0, *(len(rows) for _, rows in places)])
        for start, (part, rows) in zip(starts.tolist(), places, strict=False):
            kept = decision.kept[start : start + len(rows)]
            columns = {name: values.slice(start, len(rows)) for name, values in decision.columns.items()}
            if step.mark is not None:
                columns[step.mark] = pa.array(kept)
            else:
                self.codes[part][rows[~kept]] = FIRST_STEP + step.index
            for name, values in columns.items():
                self.marks.setdefault(part, {})[name] = _spread(values, rows, len(self.codes[part]))
        if step.mark is None:
            self._note(decision, places, starts)

    def _note(self, decision: Decision, places: Sequence[tuple[str, np.ndarray]], starts: np.ndarray) -> None:
        noted = sorted(decision.duplicate_of.keys() | decision.row_reasons.keys())
        at = np.array(noted, np.int64)
        slots = np.searchsorted(starts, at, side="right") - 1
        texts = [pa.array([said.get(row) for row in noted], pa.string()) for said in _said(decision)]
        for slot in np.unique(slots).tolist():
            first, end = np.searchsorted(slots, [slot, slot + 1]).tolist()
            part, rows = places[slot]
            here = rows[at[first:end] - starts[slot]]
            columns = [pa.array(here, pa.int32()), *(text.slice(first, end - first) for text in texts)]
            notes = pa.Table.from_arrays(columns, schema=NOTES)
            self.notes[part] = pa.concat_tables([self.notes[part], notes]) if part in self.notes else notes

    def noted(self, part: str, rows: np.ndarray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """`duplicate_of` and the own reason of those rows (ascending), NULL where there is none."""
        notes = self.notes.get(part, NOTES.empty_table())
        at = np.full(len(rows), -1, np.int64)
        at[np.searchsorted(rows, notes["row"].to_numpy())] = np.arange(notes.num_rows)
        there = pa.array(at, mask=at < 0)
        return notes[c.DUPLICATE_OF.name].take(there), notes["reason"].take(there)


def _spread(values: pa.Array | pa.ChunkedArray, rows: np.ndarray, count: int) -> pa.Array:
    """Values of some rows of a part as a column of all its rows, NULL elsewhere."""
    at = np.full(count, -1, np.int64)
    at[rows] = np.arange(len(rows))
    spread = values.take(pa.array(at, mask=at < 0))
    return spread.combine_chunks() if isinstance(spread, pa.ChunkedArray) else spread


def _said(decision: Decision) -> tuple[Mapping[int, str | None], Mapping[int, str]]:
    return decision.duplicate_of, decision.row_reasons


def first_fates(store: Store, plan: Plan, members: Sequence[Member]) -> Fates:
    """The fates before the first step: members are alive, unless forgotten, or without a URL that is to be fetched."""
    fates = Fates({})
    tombstones = tombstones_of(store, plan.tombstones)
    for member in members:
        rows = PartRows(store, plan, member)
        codes = np.where(rows.is_member, ALIVE, NOT_MEMBER).astype(np.int16)
        if plan.needs_url:
            without = rows.column(c.URL.name).is_null().to_numpy()
            codes[(codes == ALIVE) & without] = AT_SOURCE
        if tombstones:
            gone_N = forgotten_in(store, tombstones, member)
            if plan.picture_step == -1:
                gone_N |= rows.forgotten_pictures(-1)
            codes[(codes != NOT_MEMBER) & gone_N] = FORGOTTEN
        fates.codes[member.part.name] = codes
    return fates


def put_fates(store: Store, members: Sequence[Member], fates: Fates) -> FileRef:
    """Put fates into the store: a row for every row of every part, in the parts' order."""
    noted = [fates.noted(member.part.name, np.arange(member.part.rows)) for member in members]
    columns = {
        "code": np.concatenate([fates.codes[m.part.name] for m in members]) if members else np.zeros(0, np.int16),
        c.DUPLICATE_OF.name: pa.chunked_array([x for of, _ in noted for x in of.chunks], pa.string()),
        "reason": pa.chunked_array([x for _, reason in noted for x in reason.chunks], pa.string()),
    }
    names = sorted({name for marks in fates.marks.values() for name in marks})
    types = {name: values.type for marks in fates.marks.values() for name, values in marks.items()}
    for name in names:
        columns[f"mark:{name}"] = pa.concat_arrays(
            [fates.marks.get(m.part.name, {}).get(name, pa.nulls(m.part.rows, types[name])) for m in members]
        )
    return put_table(store, pa.table(columns))


def read_fates(store: Store, members: Sequence[Member], ref: FileRef) -> Fates:
    """The fates that `put_fates` put."""
    table = read_table(store, ref)
    fates = Fates({})
    marks = [name for name in table.column_names if name.startswith("mark:")]
    for member, part in _by_part(members, table):
        fates.codes[member.part.name] = part["code"].to_numpy().copy()
        noted = pa.compute.or_(part[c.DUPLICATE_OF.name].is_valid(), part["reason"].is_valid())
        rows = np.flatnonzero(noted.to_numpy())
        if len(rows):
            texts = part.select([c.DUPLICATE_OF.name, "reason"]).take(pa.array(rows))
            columns = [pa.array(rows, pa.int32()), *texts.columns]
            fates.notes[member.part.name] = pa.Table.from_arrays(columns, schema=NOTES)
        if marks:
            values = {name[len("mark:") :]: part[name].combine_chunks() for name in marks}
            fates.marks[member.part.name] = values
    return fates


def _by_part(members: Sequence[Member], table: pa.Table) -> Iterator[tuple[Member, pa.Table]]:
    start = 0
    for member in members:
        yield member, table.slice(start, member.part.rows)
        start += member.part.rows
