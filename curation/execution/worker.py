"""What happens to one part in one stage. No Ray, no Prefect: executors only decide where this runs.

`settle` follows a part through the steps by what is committed, and says which rows end where, or which operator still
has rows to compute. `work` computes them: chunks of rows stream through neighbouring operators of one resource class,
one decode serving them all; then each operator's columns are committed as the next generation of its sidecar.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curation.execution.operator_run import OperatorRun
from curation.execution.streaming import Chunk
from curation.ingest import Member
from curation.operator import Workplace
from curation.part_rows import PartRows
from curation.selection.keep import Keep
from curation.stage import OperatorStep, Plan, SelectionStep, named
from curation.storage import layout
from curation.storage.store import Store, digest
from schemas.errors import PairmillError, PartError, RunError

ALIVE = 0
AT_SOURCE = 1
FIRST_STEP = 2  # a row that ended at steps[i] has the code FIRST_STEP + i; rows that are no members have NOT_MEMBER
NOT_MEMBER = -1
FORGOTTEN = -2  # by a tombstone: at the source, or by its picture once that is there

_MOST_ROUNDS = 50


@dataclass(frozen=True)
class PartTask:
    """One part to take through one stage of a plan, from the rows that are alive before it."""

    store: Store
    plan: Plan
    stage: int
    member: Member
    fates: np.ndarray  # int16_N before the stage
    marks: Mapping[str, pa.Array] = field(default_factory=dict)
    neighbours: tuple[tuple[int, str, int], ...] = ()  # (row, part, row there): rows elsewhere with the same URL
    careful: bool = False  # one operator at a time, so that a crash tells which it was


@dataclass(frozen=True)
class Settled:
    """How far a part has come: `fates` int16_N after the stage, or the first step that has rows to compute."""

    fates: np.ndarray
    missing_step: int | None = None
    missing_rows: int = 0


@dataclass(frozen=True)
class Worked:
    """What one call of `work` did to a part; `waits_for_actor` says which kind of worker must go on, None: nobody."""

    part: str
    settled: Settled
    waits_for_actor: bool | None
    computed: Mapping[str, int]  # rows per step label


def settle(task: PartTask, rows: PartRows | None = None) -> Settled:
    """Follow a part through a stage by what is committed."""
    rows = rows or PartRows(task.store, task.plan, task.member, task.marks)
    fates = task.fates.copy()
    for step in task.plan.stages[task.stage].steps:
        alive = fates == ALIVE
        if not alive.any():
            break
        if isinstance(step, OperatorStep):
            run = OperatorRun(rows, step, task.neighbours)
            missing = alive & run.open_rows
            if missing.any() and not _given_up(task):
                return Settled(fates, step.index, int(missing.sum()))
            fates[missing] = FIRST_STEP + step.index
            fates[alive & run.committed.failed] = FIRST_STEP + step.index
            if step.brings_pictures:
                fates[(fates == ALIVE) & rows.forgotten_pictures(step.index)] = FORGOTTEN
        else:
            chosen = np.flatnonzero(alive)
            kept = kept_mask(step, rows.table(step.reads, chosen))
            fates[chosen[~kept]] = FIRST_STEP + step.index
    return Settled(fates)


def _given_up(task: PartTask) -> bool:
    """Whether the part's open rows were failed by decision under this plan."""
    return task.store.get(layout.plan(task.plan.name, f"given-up-{task.member.part.name}")) is not None


def work(task: PartTask, *, actor: bool, opened: "Opened") -> Worked:
    """Compute what a part lacks, as far as this kind of worker goes. Raises PartError."""
    done: dict[str, int] = {}
    for _ in range(_MOST_ROUNDS):
        rows = PartRows(task.store, task.plan, task.member, task.marks)
        settled = settle(task, rows)
        if settled.missing_step is None:
            return Worked(rows.name, settled, None, done)
        segment = _segment(task, settled.missing_step)
        first = segment[0]
        assert isinstance(first, OperatorStep)
        if first.actor != actor:
            return Worked(rows.name, settled, first.actor, done)
        with contextlib.ExitStack() as stack:
            runs = [OperatorRun(rows, step, task.neighbours) for step in segment if isinstance(step, OperatorStep)]
            for run in runs:
                stack.callback(run.close)
            try:
                _stream(rows, segment, runs, np.flatnonzero(settled.fates == ALIVE), opened)
            except PairmillError:
                _commit(runs, done, whole=False)  # what was fetched and measured before the error is not done again
                raise
            _commit(runs, done, whole=True)
    raise PartError(
        f"part {task.member.part.name}: was not finished after {_MOST_ROUNDS} rounds; report this as a fault"
    )


def _commit(runs: list[OperatorRun], done: dict[str, int], *, whole: bool) -> None:
    for run in runs:
        if not run.commit(whole=whole):
            break  # another worker was first: its values stand, and what was fused on ours is thrown away
        done[run.step.label] = done.get(run.step.label, 0) + run.computed_rows


class Opened:
    """What operators opened in one worker, kept between parts; `hosts` is what a `Workplace` offers."""

    def __init__(self, hosts: Callable[..., Any] | None = None) -> None:
        self._hosts = hosts
        self._by_operator: dict[str, Any] = {}

    def get(self, step: OperatorStep, store: Store) -> Any:
        """What `open` returned for a step. Raises RunError."""
        name = digest([step.ref.name, repr(step.operator), step.ref.source])  # settings too, unlike a fingerprint
        if name not in self._by_operator:
            try:
                self._by_operator[name] = step.operator.open_at(Workplace(store, self._hosts))
            except PairmillError:
                raise
            except Exception as error:
                raise RunError(f"{step.label}: cannot be opened: {type(error).__name__}: {error}") from error
        return self._by_operator[name]


def probe(task: PartTask, chosen: np.ndarray, *, opened: Opened) -> None:
    """Run the first operator that has rows to compute on the chosen rows alone, and commit nothing."""
    rows = PartRows(task.store, task.plan, task.member, task.marks)
    missing = settle(task, rows).missing_step
    if missing is not None:
        step = task.plan.producer(missing)
        with contextlib.closing(OperatorRun(rows, step, task.neighbours)) as run:
            _stream(rows, [step], [run], chosen, opened)


def _segment(task: PartTask, start: int) -> list[OperatorStep | SelectionStep]:
    """The steps from `start` on that one kind of worker can do in one go."""
    steps = [step for step in task.plan.stages[task.stage].steps if step.index >= start]
    if task.careful:
        return steps[:1]
    kinds = {step.actor for step in steps[:1] if isinstance(step, OperatorStep)}
    segment: list[OperatorStep | SelectionStep] = []
    for step in steps:
        if isinstance(step, OperatorStep) and step.actor not in kinds:
            break
        segment.append(step)
    return segment


def _stream(
    rows: PartRows,
    segment: list[OperatorStep | SelectionStep],
    runs: list[OperatorRun],
    alive: np.ndarray,
    opened: Opened,
) -> None:
    """Send the alive rows through a segment, chunk by chunk."""
    by_index = {run.step.index: run for run in runs}
    needed = [name for name in _needed(segment) if rows.plan.columns[name].step not in by_index]
    size = min(run.step.operator.batch_rows for run in runs)
    chunks = _chunks(rows, needed, alive, size)
    for step in segment:
        if isinstance(step, OperatorStep):
            chunks = by_index[step.index].through(chunks, opened.get(step, rows.store))
        else:
            chunks = _kept(step, chunks)
    for _ in chunks:
        pass


def _needed(segment: list[OperatorStep | SelectionStep]) -> list[str]:
    names: dict[str, None] = {}
    for step in segment:
        read = step.reads if isinstance(step, SelectionStep) else [step.visible[r.name] for r in step.reads]
        names.update(dict.fromkeys(name for name in read if name != "image"))
    return list(names)


def _chunks(rows: PartRows, names: list[str], alive: np.ndarray, size: int) -> Iterator[Chunk]:
    table = rows.table(names)
    for start in range(0, len(alive), size):
        chosen = alive[start : start + size]
        yield Chunk(chosen, table.take(pa.array(chosen)))


def _kept(step: SelectionStep, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        kept = np.flatnonzero(kept_mask(step, chunk.table))
        if len(kept):
            yield chunk.take(kept)


def kept_mask(step: SelectionStep, table: pa.Table) -> np.ndarray:
    """Which rows a `keep` lets live on, bool_N. Raises RunError naming step and key."""
    assert isinstance(step.step, Keep)
    with named(step):
        return step.step.keep_mask(table)
