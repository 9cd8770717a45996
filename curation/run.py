"""From a plan to fates: adopt what is decided, settle what is committed, ask an executor for what is missing."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from curation.against import load_against
from curation.execution.executor import Executor, open_models, run_parts
from curation.execution.joins import find_pairs
from curation.execution.operator_run import GIVEN_UP
from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, FORGOTTEN, Worked
from curation.fates import Fates, first_fates, put_fates, read_fates
from curation.forget.tombstones import REASON
from curation.ingest import Member, Snapshot
from curation.operator import OK
from curation.part_rows import PartRows
from curation.selection.inputs import gathered, input_table
from curation.selection.keep import Keep
from curation.selection.step import Decision, Desk
from curation.settling import Settling, each
from curation.stage import OperatorStep, Plan, SelectionStep, Stage, named
from curation.storage import layout, sidecars
from curation.storage.sidecars import STATUS
from curation.storage.store import FileRef, Store
from schemas.errors import PartError


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


@dataclass(frozen=True)
class Pace:
    """How long the workers of a run took for rows of a stage: what a later plan expects."""

    rows: int
    seconds: float


class Run:
    """One run of a plan over one snapshot."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        snapshot: Snapshot,
        watcher: Watcher,
        workers: Callable[[], Executor] | None = None,
    ) -> None:
        self.store = store
        self.plan = plan
        self.snapshot = snapshot
        self.watcher = watcher
        self._desk = Desk(store, partial(find_pairs, workers=workers))
        self.opened = False  # whether models were tried before the first part was taken
        self.paces: dict[str, Pace] = {}  # of the stages that workers were at, by fingerprint
        self.reached = 0  # the first stage that is not decided
        self.fates = self._newest_decision() or first_fates(store, plan, snapshot.parts)

    @cached_property
    def _settling(self) -> Settling:
        """How far the parts have come in the current stage."""
        return Settling(self.store, self.plan, self.reached, self.snapshot.parts, self.fates)

    @property
    def decided(self) -> bool:
        """Whether every row has its fate."""
        return self.reached == len(self.plan.stages)

    def advance(self) -> bool:
        """Go as far as is possible without a worker; say whether every row has its fate."""
        while not self.decided:
            if self._settling.left():
                self._settling.roll_up()
                return False
            self._decide()
        return True

    def models(self) -> list[OperatorStep]:
        """Operators to come that are dear to open and have parts that they were never at."""
        stages = self.plan.stages[self.reached :]
        steps = [step for stage in stages for step in stage.steps if isinstance(step, OperatorStep) and step.actor]
        return [
            step for step in steps if step.rides_on or any(self._was_never_at(step, m) for m in self.snapshot.parts)
        ]

    def _was_never_at(self, step: OperatorStep, member: Member) -> bool:
        return sidecars.latest(self.store, member.part.name, step.name, step.base_fingerprint) is None

    def run_stage(self, executor: Executor) -> None:
        """Compute what the next block of parts lacks in the current stage.

        A part that cannot be finished stops the run (in `advance`) when all others of its stage are through.
        """
        if not self.opened:
            open_models(executor, self.store, self.models())
            self.opened = True
        stage = self._settling
        left = stage.left()
        block = stage.next_block()
        alive = {part: int((codes == ALIVE).sum()) for part, codes in self.fates.codes.items()}
        done = sum(alive.values()) - sum(alive[member.part.name] for member in left)
        self.watcher.stage(self.stage_name(), len(block), sum(alive.values()), done)
        error, started, rows = None, time.monotonic(), 0
        try:
            for worked in run_parts(executor, stage.tasks(block)):
                self.watcher.part(worked, alive[worked.part])
                rows += alive[worked.part]
        except PartError as raised:
            error = raised
        stage.worked(block, error)
        self._note_pace(rows, time.monotonic() - started)

    def _note_pace(self, rows: int, seconds: float) -> None:
        name = self.plan.stages[self.reached].fingerprint
        before = self.paces.get(name, Pace(0, 0.0))
        self.paces[name] = Pace(before.rows + rows, round(before.seconds + seconds, 3))

    def stage_name(self) -> str:
        """The current stage by the labels of its operators, for people."""
        stage = self.plan.stages[self.reached]
        labels = [step.label for step in stage.steps if isinstance(step, OperatorStep)]
        barrier = [stage.barrier.label] if stage.barrier else []
        return ", ".join(labels + barrier) or "selection"

    def missing_rows(self) -> dict[str, int]:
        """Rows that the current stage would compute, by the label of the first operator that lacks them."""
        total: dict[str, int] = {}
        for settled in self._settling.settle().values():
            if settled.missing_step is not None:
                label = self.plan.steps[settled.missing_step].label
                total[label] = total.get(label, 0) + settled.missing_rows
        return total

    def _decide(self) -> None:
        """Settle the stage from what is committed, decide its barrier, and fix the decision under the plan's name."""
        stage = self.plan.stages[self.reached]
        before = self.fates.counts()
        for part, settled in self._settling.settle().items():
            assert settled.missing_step is None, "a stage is decided when every part is computed"
            self.fates.codes[part] = settled.fates
        for step in stage.steps:
            if isinstance(step, SelectionStep):
                self.fates.reasons[step.index] = _keep_reason(step)
            else:
                self.fates.statuses[step.index] = self._statuses(step)
        if stage.barrier is not None:
            self._decide_barrier(stage.barrier)
        self._fix_decision()
        self._tell(stage, before)
        self.reached += 1
        self.__dict__.pop("_settling", None)

    def _statuses(self, step: OperatorStep) -> dict[str, int]:
        """How many rows failed at an operator, by status."""
        code = FIRST_STEP + step.index
        members = [member for member in self.snapshot.parts if (self.fates.codes[member.part.name] == code).any()]
        found = Counter[str]()
        for _, statuses in each(members, lambda member: self._statuses_in(step, member)):
            found.update(status if status not in (None, OK) else GIVEN_UP for status in statuses)
        return dict(sorted(found.items()))

    def _statuses_in(self, step: OperatorStep, member: Member) -> list[str | None]:
        rows = PartRows(self.store, self.plan, member, self.fates.marks.get(member.part.name))
        here = np.flatnonzero(self.fates.codes[member.part.name] == FIRST_STEP + step.index)
        statuses: list[str | None] = rows.operator(step.index).outcome[STATUS].take(pa.array(here)).to_pylist()
        return statuses

    def _decide_barrier(self, step: SelectionStep) -> None:
        places: list[tuple[str, np.ndarray]] = []

        def alive() -> Iterator[pa.Table]:
            for member, (chosen, table) in each(self.snapshot.parts, lambda member: self._inputs(step, member)):
                if len(chosen):
                    places.append((member.part.name, chosen))
                    yield table

        rows = gathered(alive(), self._desk.spill)
        if rows is None:
            return
        against = load_against(step)
        with named(step):
            decision = step.step.decide(rows, against, self._desk)
        assert isinstance(decision, Decision)
        assert len(decision.kept) == sum(len(rows) for _, rows in places)
        self.fates.apply(step, decision, places)

    def _inputs(self, step: SelectionStep, member: Member) -> tuple[np.ndarray, pa.Table]:
        """The alive rows of a part, and what a barrier looks at of them."""
        chosen = self.fates.alive_rows(member.part.name)
        rows = PartRows(self.store, self.plan, member, self.fates.marks.get(member.part.name))
        table = rows.table(step.reads, chosen)
        with named(step):
            return chosen, input_table(step.step, table)

    def _fix_decision(self) -> None:
        name = layout.plan(self.plan.name, f"stage-{self.reached:03d}")
        ref = put_fates(self.store, self.snapshot.parts, self.fates)
        reasons = {str(index): reason for index, reason in self.fates.reasons.items()}
        statuses = {str(index): counts for index, counts in self.fates.statuses.items()}
        facts = {str(index): said for index, said in self.fates.facts.items()}
        decided = {"fates": ref.record(), "snapshot": self.snapshot.digest}  # by which a purge knows the rows
        decided |= {"reasons": reasons, "statuses": statuses, "facts": facts}
        if not self.store.put(name, decided):
            self.fates = self._read_decision(self.store.get(name))

    def _newest_decision(self) -> Fates | None:
        for number in reversed(range(len(self.plan.stages))):
            record = self.store.get(layout.plan(self.plan.name, f"stage-{number:03d}"))
            if record is not None:
                self.reached = number + 1
                return self._read_decision(record)
        return None

    def _read_decision(self, record: dict) -> Fates:  # type: ignore[type-arg]
        fates = read_fates(self.store, self.snapshot.parts, FileRef(**record["fates"]))
        fates.reasons = {int(index): reason for index, reason in record["reasons"].items()}
        fates.statuses = {int(index): counts for index, counts in record["statuses"].items()}
        fates.facts = {int(index): said for index, said in record["facts"].items()}
        return fates

    def _tell(self, stage: Stage, before: dict[int, int]) -> None:
        counts = self.fates.counts()
        alive = before.get(ALIVE, 0)
        for step in [*stage.steps, *([stage.barrier] if stage.barrier else [])]:
            gone = counts.get(FIRST_STEP + step.index, 0)
            self.watcher.decided(step.label, alive, alive - gone)
            alive -= gone


def funnel(plan: Plan, snapshot: Snapshot, fates: Fates) -> list[dict[str, object]]:
    """Rows into and out of every step; step 0 is the source, and what is forgotten ends there."""
    counts = fates.counts()
    forgotten = counts.get(FORGOTTEN, 0)
    alive = snapshot.keys - counts.get(AT_SOURCE, 0) - snapshot.rejected_rows - forgotten
    reason = f"{forgotten:,} {REASON}" if forgotten else ""
    rows: list[dict[str, object]] = [
        {"step": "source", "kind": "source", "rows_in": snapshot.rows_read, "rows_out": alive, "reason": reason}
    ]
    for step in plan.steps:
        gone = counts.get(FIRST_STEP + step.index, 0)
        reason = fates.reasons.get(step.index) or _by_count(fates.statuses.get(step.index, {}))
        row = {"step": step.label, "kind": step.name, "rows_in": alive, "rows_out": alive - gone, "reason": reason}
        rows.append(row)
        alive -= gone
    return rows


def _by_count(statuses: dict[str, int]) -> str:
    """Most first: `http_404 150, timeout 3`."""
    ordered = sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{status} {count:,}" for status, count in ordered)


def _keep_reason(step: SelectionStep) -> str:
    assert isinstance(step.step, Keep)
    return step.step.reason
