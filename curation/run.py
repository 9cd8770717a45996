"""From a plan to fates: adopt what is decided, settle what is committed, ask an executor for what is missing."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from curation import sql
from curation.against import load_against
from curation.execution.executor import Executor, run_parts
from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, PartTask, Settled, Worked, settle
from curation.fates import Fates, first_fates, put_fates, read_fates
from curation.ingest import Member, Snapshot
from curation.part_rows import PartRows
from curation.selection.keep import Keep
from curation.selection.step import Decision
from curation.stage import OperatorStep, Plan, SelectionStep, Stage
from curation.storage import layout
from curation.storage.pool import read_pool
from curation.storage.store import FileRef, Store
from curation.storage.tables import read_table
from schemas.columns import KEY
from schemas.errors import PartError

_THREADS = min(8, os.cpu_count() or 1)

Result = TypeVar("Result")


class Watcher(Protocol):
    """Who is told how a run goes. Telling must never fail the run."""

    def stage(self, name: str, parts: int, rows: int, rows_done: int) -> None:
        """A stage has begun; `rows_done` of its alive rows need no work."""

    def part(self, worked: Worked, rows: int) -> None:
        """A part with that many alive rows is finished."""

    def decided(self, label: str, rows_in: int, rows_out: int) -> None:
        """A dataset step has decided."""

    def shards(self, written: int, total: int) -> None:
        """So many shards are written."""


class Run:
    """One run of a plan over one snapshot."""

    def __init__(self, store: Store, plan: Plan, snapshot: Snapshot, watcher: Watcher) -> None:
        self.store = store
        self.plan = plan
        self.snapshot = snapshot
        self.watcher = watcher
        self.reached = 0  # the first stage that is not decided
        self.fates = self._newest_decision() or first_fates(store, plan, snapshot.parts)
        self._settled: dict[str, Settled] | None = None

    @property
    def decided(self) -> bool:
        """Whether every row has its fate."""
        return self.reached == len(self.plan.stages)

    def advance(self) -> bool:
        """Go as far as is possible without a worker; say whether every row has its fate."""
        while not self.decided:
            if any(settled.missing_step is not None for settled in self._settle().values()):
                return False
            self._decide()
        return True

    def run_stage(self, executor: Executor) -> None:
        """Compute what the current stage lacks, and decide its barrier."""
        settled = self._settle()
        missing = [member for member in self.snapshot.parts if settled[member.part.name].missing_step is not None]
        stage = self.reached
        alive = {
            member.part.name: int((self.fates.codes[member.part.name] == ALIVE).sum()) for member in self.snapshot.parts
        }
        done = sum(alive.values()) - sum(alive[member.part.name] for member in missing)
        self.watcher.stage(self.stage_name(stage), len(missing), sum(alive.values()), done)
        if missing:
            for worked in run_parts(executor, self._tasks(missing, settled)):
                self.watcher.part(worked, alive[worked.part])
        self._settled = None
        self._decide()

    def stage_name(self, number: int) -> str:
        """A stage by the labels of its operators, for people."""
        stage = self.plan.stages[number]
        labels = [step.label for step in stage.steps if isinstance(step, OperatorStep)]
        barrier = [stage.barrier.label] if stage.barrier else []
        return ", ".join(labels + barrier) or "selection"

    def missing_rows(self) -> dict[str, int]:
        """Rows that the current stage would compute, by the label of the first operator that lacks them."""
        total: dict[str, int] = {}
        for settled in self._settle().values():
            if settled.missing_step is not None:
                label = self.plan.steps[settled.missing_step].label
                total[label] = total.get(label, 0) + settled.missing_rows
        return total

    def _tasks(self, members: Sequence[Member], settled: dict[str, Settled]) -> Iterator[tuple[PartTask, bool]]:
        neighbours = self._neighbours() if self.plan.pictures else {}
        for member in members:
            step = settled[member.part.name].missing_step
            assert step is not None
            yield self._task(member, tuple(neighbours.get(member.part.name, ()))), self.plan.producer(step).actor

    def _task(self, member: Member, neighbours: tuple[tuple[int, str, int], ...] = ()) -> PartTask:
        part = member.part.name
        marks = self.fates.marks.get(part, {})
        return PartTask(self.store, self.plan, self.reached, member, self.fates.codes[part], marks, neighbours)

    def _settle(self) -> dict[str, Settled]:
        if self._settled is None:
            settled = self._each_part(lambda member: settle(self._task(member)))
            self._settled = {member.part.name: one for member, one in settled}
        return self._settled

    def _each_part(self, function: Callable[[Member], Result]) -> Iterator[tuple[Member, Result]]:
        """A function of every part, in the parts' order; reading and SQL leave Python's lock, so threads help."""
        with ThreadPoolExecutor(_THREADS) as threads:
            yield from zip(self.snapshot.parts, threads.map(function, self.snapshot.parts), strict=True)

    def _decide(self) -> None:
        """Settle the stage from what is committed, decide its barrier, and fix the decision under the plan's name."""
        stage = self.plan.stages[self.reached]
        before = self.fates.counts()
        for part, settled in self._settle().items():
            if settled.missing_step is not None:
                label = self.plan.steps[settled.missing_step].label
                raise PartError(
                    f"part {part}: {settled.missing_rows} rows were not computed at {label}; run the same again, "
                    f"or fail these rows by decision: --give-up {part}"
                )
            self.fates.codes[part] = settled.fates
        self._settled = None
        for step in stage.steps:
            if isinstance(step, SelectionStep):
                self.fates.reasons[step.index] = _keep_reason(step)
        if stage.barrier is not None:
            self._decide_barrier(stage.barrier)
        self._fix_decision()
        self._tell(stage, before)
        self.reached += 1

    def _decide_barrier(self, step: SelectionStep) -> None:
        places: list[tuple[str, np.ndarray]] = []
        tables = []
        for member, (chosen, table) in self._each_part(lambda member: self._inputs(step, member)):
            if len(chosen):
                tables.append(table)
                places.append((member.part.name, chosen))
        if not tables:
            return
        decision = step.step.decide(pa.concat_tables(tables), load_against(step.step))
        assert isinstance(decision, Decision)
        assert len(decision.kept) == sum(len(rows) for _, rows in places)
        self.fates.apply(step, decision, places)

    def _inputs(self, step: SelectionStep, member: Member) -> tuple[np.ndarray, pa.Table]:
        """The alive rows of a part, and what a barrier looks at of them."""
        chosen = self.fates.alive_rows(member.part.name)
        rows = PartRows(self.store, self.plan, member, self.fates.marks.get(member.part.name))
        table = rows.table(step.reads, chosen)
        return chosen, _with_key(table[KEY.name], sql.evaluate(step.step.inputs, table))

    def _fix_decision(self) -> None:
        name = layout.plan(self.plan.name, f"stage-{self.reached:03d}")
        ref = put_fates(self.store, self.snapshot.parts, self.fates)
        reasons = {str(index): reason for index, reason in self.fates.reasons.items()}
        if not self.store.put(name, {"fates": ref.record(), "reasons": reasons}):
            self.fates = self._read_decision(self.store.get(name))

    def _newest_decision(self) -> Fates | None:
        for number in reversed(range(len(self.plan.stages))):
            record = self.store.get(layout.plan(self.plan.name, f"stage-{number:03d}"))
            if record is not None:
                self.reached = number + 1
                return self._read_decision(record)
        return None

    def _read_decision(self, record: dict) -> Fates:  # type: ignore[type-arg]
        reasons = {int(index): reason for index, reason in record["reasons"].items()}
        return read_fates(self.store, self.snapshot.parts, FileRef(**record["fates"]), reasons)

    def _tell(self, stage: Stage, before: dict[int, int]) -> None:
        counts = self.fates.counts()
        alive = before.get(ALIVE, 0)
        for step in [*stage.steps, *([stage.barrier] if stage.barrier else [])]:
            gone = counts.get(FIRST_STEP + step.index, 0)
            self.watcher.decided(step.label, alive, alive - gone)
            alive -= gone

    def _neighbours(self) -> dict[str, list[tuple[int, str, int]]]:
        """For each part, rows whose URL stands in another part too: (row, part there, row there)."""
        found: dict[str, list[tuple[int, str, int]]] = {}
        for ref in read_pool(self.store).shared:
            for pair in read_table(self.store, ref).to_pylist():
                found.setdefault(pair["part"], []).append((pair["row"], pair["home_part"], pair["home_row"]))
                found.setdefault(pair["home_part"], []).append((pair["home_row"], pair["part"], pair["row"]))
        return found


def funnel(plan: Plan, snapshot: Snapshot, fates: Fates) -> list[dict[str, object]]:
    """Rows into and out of every step; step 0 is the source."""
    counts = fates.counts()
    at_source = counts.get(AT_SOURCE, 0) + snapshot.rejected_rows
    alive = snapshot.keys - at_source
    rows: list[dict[str, object]] = [
        {"step": "source", "kind": "source", "rows_in": snapshot.rows_read, "rows_out": alive, "reason": ""}
    ]
    for step in plan.steps:
        gone = counts.get(FIRST_STEP + step.index, 0)
        reason = fates.reasons.get(step.index, "") if isinstance(step, SelectionStep) else ""
        row = {"step": step.label, "kind": step.name, "rows_in": alive, "rows_out": alive - gone, "reason": reason}
        rows.append(row)
        alive -= gone
    return rows


def _keep_reason(step: SelectionStep) -> str:
    assert isinstance(step.step, Keep)
    return step.step.reason


def _with_key(keys: pa.ChunkedArray, inputs: pa.Table) -> pa.Table:
    return pa.table({KEY.name: keys, **{name: inputs[name] for name in inputs.column_names}})
