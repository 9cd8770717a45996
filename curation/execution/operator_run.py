"""One operator on one part: which rows it must compute, computing them in a stream, and committing a generation."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from curation.execution.generation import NewGeneration, open_rows, retried
from curation.execution.guarded import Guarded
from curation.execution.streaming import Chunk, gather
from curation.operator import OK, Batch, Failure, Output
from curation.part_rows import OperatorRows, PartRows, judged, read_pictures
from curation.stage import OperatorStep
from curation.storage import layout, sidecars
from curation.storage.sidecars import COMPUTED, ERROR, STATUS
from schemas.columns import IMAGE, KEY, Column

CRASH, GIVEN_UP = "crash", "given_up"
_MOST_ERROR_CHARS = 500


class OperatorRun:
    """One operator on one part."""

    def __init__(self, rows: PartRows, step: OperatorStep, neighbours: tuple[tuple[int, str, int], ...] = ()) -> None:
        self._rows = rows
        self.step = step
        self.committed: OperatorRows = rows.operator(step.index)
        self._neighbours = neighbours if step.brings_pictures else ()
        self._generation = NewGeneration(rows, step, self.committed)

    @property
    def open_rows(self) -> np.ndarray:
        """Rows that would be computed if they were alive, bool_N."""
        return open_rows(self._rows.plan, self.committed)

    @property
    def computed_rows(self) -> int:
        """How many rows this run computed."""
        return self._generation.rows

    def commit(self, *, whole: bool = True) -> bool:
        """Put what was computed (`whole`: all that was to be); False where another worker was first for some of it."""
        return self._generation.commit(whole=whole)

    def close(self) -> None:
        """Let go of what was not committed."""
        self._generation.close()

    def through(self, chunks: Iterator[Chunk], opened: Any) -> Iterator[Chunk]:
        """The chunks with this operator's columns; rows that fail go no further."""
        held: list[Chunk] = []
        ready: list[Chunk] = []
        where = f"part {self._rows.name}, {self.step.label}"
        guarded = Guarded(self.step.operator, self._with_values, where, self.step.adds)
        for rows, (output, values) in guarded.stream(self._to_compute(chunks, held, ready), opened):
            fresh = self._take_in(gather_held(held, rows), output, values)
            yield from self._flush(ready)
            if len(fresh.rows):
                yield fresh
        yield from self._flush(ready)

    def _to_compute(
        self, chunks: Iterator[Chunk], held: list[Chunk], ready: list[Chunk]
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Split each chunk: rows with a committed outcome wait in `ready`, the others go to the operator."""
        open_rows = self.open_rows
        adopted = self._adopt(open_rows)
        for chunk in chunks:
            todo = open_rows[chunk.rows]
            if not todo.all():
                ready.append(self._committed_columns(chunk.take(np.flatnonzero(~todo))))
            known = todo & np.isin(chunk.rows, [*self._crashed, *adopted])
            if known.any():
                ready.extend(self._without_running(chunk.take(np.flatnonzero(known)), adopted))
            todo &= ~known
            if todo.any():
                part = self._with_pictures(chunk.take(np.flatnonzero(todo)))
                held.append(part)
                yield part.rows, self._batch(part)

    def _flush(self, ready: list[Chunk]) -> Iterator[Chunk]:
        while ready:
            chunk = ready.pop(0)
            if len(chunk.rows):
                yield chunk

    def _batch(self, chunk: Chunk) -> Batch:
        names = [KEY.name, *(column.name for column in self.step.reads if column.name != IMAGE.name)]
        table = pa.table({name: chunk.table[self.step.visible.get(name, name)] for name in names})
        return Batch(table, chunk.stored or [None] * len(chunk.rows), chunk.pixels)

    def _with_pictures(self, chunk: Chunk) -> Chunk:
        if self.step.reads_pictures and chunk.stored is None:
            chunk.stored = list(self._rows.stored(chunk.rows.tolist()))
        return chunk

    def _take_in(self, chunk: Chunk, output: Output, table: pa.Table) -> Chunk:
        """Keep an output for the commit; return the rows that live on, with the columns as storage gives them back."""
        self._generation.add(chunk.rows, table, output.ledger)
        if self.step.brings_pictures and output.stored is not None:
            originals = output.originals or [None] * len(output.stored)
            gone_N = self._rows.forgotten(table)
            for row, stored, original, gone in zip(chunk.rows.tolist(), output.stored, originals, gone_N, strict=True):
                if stored is not None and not gone:
                    self._generation.add_picture(row, stored, original)
            chunk.stored = list(output.stored)
            chunk.pixels = {}
        return self._survivors(chunk, table)

    def _survivors(self, chunk: Chunk, values: pa.Table) -> Chunk:
        """The rows that did not fail, with the operator's visible columns."""
        own = [*(column.name for column in self.step.values), *self._outcome_names]
        names = [self.step.visible.get(name) or self._outcome_names[name] for name in own]
        if self.step.judges_by:
            beside = pa.table({mine: chunk.table[name] for mine, name in self.step.judges_by.items()})
            values = judged(values, self.step.operator.refusals(values, beside))
        alive_N = values[STATUS].to_numpy(zero_copy_only=False) == OK
        if self.step.brings_pictures:
            alive_N &= ~self._rows.forgotten(values)
        alive = np.flatnonzero(alive_N)
        return chunk.with_columns(values.select(own), names).take(alive)

    def _with_values(self, count: int, output: Output) -> tuple[Output, pa.Table]:
        return output, self._values(count, output)

    def _values(self, count: int, output: Output) -> pa.Table:
        failures = output.failures
        failed = np.zeros(count, bool)
        failed[list(failures)] = True
        status = [failures[i].status if i in failures else OK for i in range(count)]
        errors = [failures[i].error[:_MOST_ERROR_CHARS] if i in failures else None for i in range(count)]
        passing = {CRASH, GIVEN_UP, *self.step.operator.passing}
        columns = {COMPUTED: [s not in passing for s in status], STATUS: status, ERROR: errors}
        for column in self.step.values:
            values = output.values[column.name]
            if len(values) != count:
                raise ValueError(f"column {column.name}: {len(values):,} values were returned for {count:,} rows")
            columns[column.name] = stored_array(values, column, failed)
        return pa.table(columns, schema=sidecars.values_schema(self.step.values))

    def _committed_columns(self, chunk: Chunk) -> Chunk:
        own = dict.fromkeys([STATUS, *(column.name for column in self.step.values), *self._outcome_names])
        values = self.committed.recorded(list(own)).take(pa.array(chunk.rows))
        return self._survivors(chunk, values)

    @cached_property
    def _outcome_names(self) -> dict[str, str]:
        """Under which names the plan sees status and error: a `keep` that is fused with the operator may read them."""
        columns = self._rows.plan.columns.items()
        mine = {
            where.name: name for name, where in columns if where.kind == "sidecar" and where.step == self.step.index
        }
        return {own: mine[own] for own in (STATUS, ERROR) if own in mine}

    @cached_property
    def _crashed(self) -> dict[int, str]:
        """Rows that killed their worker at this operator before; where crashes are tried again, under this plan."""
        plan, part, fingerprint = self._rows.plan, self._rows.name, self.committed.fingerprint
        tried_again = (
            plan.retry is not None and not retried(plan, self.committed) and (not plan.retry or CRASH in plan.retry)
        )
        crashed: dict[int, str] = {}
        number = 0
        while (record := self._rows.store.get(layout.crash(part, self.step.name, fingerprint, number))) is not None:
            number += 1
            if not tried_again or record["plan"] == plan.name:
                crashed[record["row"]] = record["error"]
        return crashed

    def _without_running(self, chunk: Chunk, adopted: dict[int, tuple[OperatorRows, int]]) -> Iterator[Chunk]:
        """Rows whose outcome is known without running: adopted from another part, or failed by a crash."""
        for place, row in enumerate(chunk.rows.tolist()):
            one = chunk.take(np.array([place]))
            if row in adopted:
                elsewhere, there = adopted[row]
                values = elsewhere.recorded(sidecars.values_schema(self.step.values).names).slice(there, 1)
                if there in elsewhere.locations and self.step.brings_pictures:
                    one.stored = list(read_pictures(self._rows.store, [elsewhere.locations[there]]))
                    self._generation.adopt_picture(row, elsewhere.locations[there])
                self._generation.add(one.rows, values)
                yield self._survivors(one, values)
            else:
                empty = {column.name: [None] for column in self.step.values}
                failed = Output(empty, {0: Failure(CRASH, self._crashed[row])})
                self._take_in(one, failed, self._values(1, failed))

    def _adopt(self, open_rows: np.ndarray) -> dict[int, tuple[OperatorRows, int]]:
        """Rows whose URL has been fetched for another row: row → (what is committed there, row there)."""
        adopted = self._adopt_here(open_rows)
        elsewhere: dict[str, OperatorRows] = {}
        for row, part, there in self._neighbours:
            if not open_rows[row] or row in adopted:
                continue
            if part not in elsewhere:
                found = sidecars.latest(self._rows.store, part, self.step.name, self.committed.fingerprint)
                count = 0 if found is None else sidecars.read_values(self._rows.store, found, [COMPUTED]).num_rows
                fingerprint = self.committed.fingerprint
                elsewhere[part] = OperatorRows(self._rows.store, part, count, self.step, fingerprint)
            if elsewhere[part].sidecar is not None and elsewhere[part].computed[there]:
                adopted[row] = (elsewhere[part], there)
        return adopted

    def _adopt_here(self, open_rows: np.ndarray) -> dict[int, tuple[OperatorRows, int]]:
        """The same among the rows of this part: a looser filter brings another caption of a URL that is there."""
        if not self.step.brings_pictures or self.committed.sidecar is None or self.step.rides_on:
            return {}  # where columns of the source decide too, rows of one URL may differ
        addresses = self._rows.addresses
        known = {addresses[row]: row for row in np.flatnonzero(self.committed.computed).tolist()}
        rows = np.flatnonzero(open_rows).tolist()
        return {row: (self.committed, known[addresses[row]]) for row in rows if addresses[row] in known}


def gather_held(held: list[Chunk], rows: np.ndarray) -> Chunk:
    """The chunk of exactly those rows, out of the chunks that an operator was given."""
    for place, chunk in enumerate(held):
        if chunk.rows is rows:
            return held.pop(place)
    return gather(held, rows)


def stored_array(values: Any, column: Column, failed: np.ndarray) -> pa.Array:
    """Values as an Arrow array of the column's storage type, NULL where the row failed."""
    if column.width is not None and isinstance(values, np.ndarray):
        halves = np.ascontiguousarray(values, np.float16).reshape(len(failed), column.width)
        values = [None if gone else halves[i].tobytes() for i, gone in enumerate(failed)]
    if isinstance(values, np.ndarray):
        return pa.array(values, type=column.type, mask=failed)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = values.to_pylist()
    return pa.array([None if gone else value for value, gone in zip(values, failed, strict=True)], type=column.type)
