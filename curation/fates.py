"""What has become of every row of a snapshot: the state that barriers decide, and its file in the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, NOT_MEMBER
from curation.ingest import Member
from curation.part_rows import PartRows
from curation.selection.step import Decision
from curation.stage import Plan, SelectionStep
from curation.storage.store import FileRef, Store
from curation.storage.tables import put_table, read_table
from schemas import columns as c


@dataclass
class Note:
    """What is known of one dropped row beyond its step: the row kept instead, a reason of its own."""

    duplicate_of: str | None = None
    reason: str | None = None


@dataclass
class Fates:
    """Per part: int16_N codes (see execution/worker.py), notes on single rows, and boolean marks."""

    codes: dict[str, np.ndarray]
    notes: dict[str, dict[int, Note]] = field(default_factory=dict)
    marks: dict[str, dict[str, pa.Array]] = field(default_factory=dict)  # part → mark → booleans of the part
    reasons: dict[int, str] = field(default_factory=dict)  # step index → the reason of its drops

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
        starts = np.cumsum([0, *(len(rows) for _, rows in places)])
        for start, (part, rows) in zip(starts.tolist(), places, strict=False):
            kept = decision.kept[start : start + len(rows)]
            if step.mark is not None:
                values = np.full(len(self.codes[part]), None, object)
                values[rows] = kept
                self.marks.setdefault(part, {})[step.mark] = pa.array(values, pa.bool_())
            else:
                self.codes[part][rows[~kept]] = FIRST_STEP + step.index
        if step.mark is None:
            for place in decision.duplicate_of.keys() | decision.row_reasons.keys():
                slot = int(np.searchsorted(starts, place, side="right")) - 1
                part, rows = places[slot]
                note = Note(decision.duplicate_of.get(place), decision.row_reasons.get(place))
                self.notes.setdefault(part, {})[int(rows[place - starts[slot]])] = note


def first_fates(store: Store, plan: Plan, members: Sequence[Member]) -> Fates:
    """The fates before the first step: members are alive, but rows without a URL where a download is to come."""
    fates = Fates({})
    for member in members:
        rows = PartRows(store, plan, member)
        codes = np.where(rows.is_member, ALIVE, NOT_MEMBER).astype(np.int16)
        if plan.needs_url:
            without = rows.column(c.URL.name).is_null().to_numpy()
            codes[(codes == ALIVE) & without] = AT_SOURCE
        fates.codes[member.part.name] = codes
    return fates


def put_fates(store: Store, members: Sequence[Member], fates: Fates) -> FileRef:
    """Put fates into the store: a row for every row of every part, in the parts' order."""
    count = sum(member.part.rows for member in members)
    duplicate_of, reasons = np.full(count, None, object), np.full(count, None, object)
    start = 0
    for member in members:
        for row, note in fates.notes.get(member.part.name, {}).items():
            duplicate_of[start + row], reasons[start + row] = note.duplicate_of, note.reason
        start += member.part.rows
    columns = {
        "code": np.concatenate([fates.codes[m.part.name] for m in members]) if members else np.zeros(0, np.int16),
        c.DUPLICATE_OF.name: pa.array(duplicate_of, pa.string()),
        "reason": pa.array(reasons, pa.string()),
    }
    names = sorted({name for marks in fates.marks.values() for name in marks})
    for name in names:
        columns[f"mark:{name}"] = pa.concat_arrays(
            [fates.marks.get(m.part.name, {}).get(name, pa.nulls(m.part.rows, pa.bool_())) for m in members]
        )
    return put_table(store, pa.table(columns))


def read_fates(store: Store, members: Sequence[Member], ref: FileRef, reasons: dict[int, str]) -> Fates:
    """The fates that `put_fates` put."""
    table = read_table(store, ref)
    fates = Fates({}, reasons=reasons)
    marks = [name for name in table.column_names if name.startswith("mark:")]
    for member, part in _by_part(members, table):
        fates.codes[member.part.name] = part["code"].to_numpy().copy()
        noted = pa.compute.or_(part[c.DUPLICATE_OF.name].is_valid(), part["reason"].is_valid())
        rows = np.flatnonzero(noted.to_numpy())
        pairs = part.select([c.DUPLICATE_OF.name, "reason"]).take(pa.array(rows)).to_pylist()
        if pairs:
            found = zip(rows.tolist(), pairs, strict=True)
            fates.notes[member.part.name] = {
                row: Note(pair[c.DUPLICATE_OF.name], pair["reason"]) for row, pair in found
            }
        if marks:
            values = {name[len("mark:") :]: part[name].combine_chunks() for name in marks}
            fates.marks[member.part.name] = values
    return fates


def _by_part(members: Sequence[Member], table: pa.Table) -> Iterator[tuple[Member, pa.Table]]:
    start = 0
    for member in members:
        yield member, table.slice(start, member.part.rows)
        start += member.part.rows
