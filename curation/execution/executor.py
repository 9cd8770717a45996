"""What an executor is, and how tasks go through one: bounded, passed on between kinds of workers, crashes isolated."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from curation.execution.worker import ALIVE, PartTask, Worked, settle
from curation.part_rows import PartRows
from curation.storage import layout
from schemas.errors import PartError

_CRASHES_BEFORE_BISECTING = 2
_IN_FLIGHT_PER_SLOT = 3


class WorkerDied(Exception):
    """The worker's process ended while it had a task."""


class Executor(Protocol):
    """Where tasks run. Executors differ in where, never in what."""

    def slots(self, actor: bool) -> int:
        """How many tasks of a kind run at once."""

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> Any:
        """Start `function(task, actor=…, opened=…)` in a worker and return a handle."""

    def wait(self, handles: list[Any]) -> list[tuple[Any, Callable[[], Any]]]:
        """Wait until at least one handle is done; (handle, function that returns its result or raises)."""

    def close(self) -> None:
        """Stop the workers."""


@dataclass
class _Flight:
    task: PartTask
    actor: bool
    crashes: int = 0


def run_parts(executor: Executor, tasks: Iterator[tuple[PartTask, bool]]) -> Iterator[Worked]:
    """Take parts through a stage; (task, whether an actor must begin). Yields each part as it is finished."""
    flights: dict[Any, _Flight] = {}
    waiting: list[_Flight] = []
    suspects: list[_Flight] = []  # a worker died with them: each goes on alone, so that no other part is blamed
    while True:
        if suspects and not flights:
            flight = suspects.pop()
            flights[executor.submit(_work, flight.task, actor=flight.actor)] = flight
        elif not suspects:
            _fill(executor, flights, waiting, tasks)
        if not flights:
            return
        alone = len(flights) == 1
        for handle, result in executor.wait(list(flights)):
            flight = flights.pop(handle)
            try:
                worked = result()
            except WorkerDied:
                suspects.append(_after_crash(executor, flight) if alone else flight)
                continue
            if worked.waits_for_actor is None:
                yield worked
            else:
                waiting.append(replace(flight, actor=worked.waits_for_actor))


def _fill(
    executor: Executor, flights: dict[Any, _Flight], waiting: list[_Flight], tasks: Iterator[tuple[PartTask, bool]]
) -> None:
    """Submit what the workers can hold: parts that were begun first, then new ones, a few per slot."""
    room = {kind: executor.slots(kind) * _IN_FLIGHT_PER_SLOT for kind in (False, True)}
    for flight in flights.values():
        room[flight.actor] -= 1
    for flight in list(waiting):
        if room[flight.actor] > 0:
            waiting.remove(flight)
            room[flight.actor] -= 1
            flights[executor.submit(_work, flight.task, actor=flight.actor)] = flight
    while len(flights) + len(waiting) < sum(executor.slots(kind) for kind in (False, True)) * _IN_FLIGHT_PER_SLOT:
        following = next(tasks, None)
        if following is None:
            return
        flight = _Flight(*following)
        if room[flight.actor] > 0:
            room[flight.actor] -= 1
            flights[executor.submit(_work, flight.task, actor=flight.actor)] = flight
        else:
            waiting.append(flight)


def _work(task: PartTask, **where: Any) -> Worked:
    from curation.execution.worker import work

    return work(task, **where)


def _probe(task: "_Probe", *, actor: bool, opened: Any) -> None:
    from curation.execution.worker import probe

    probe(task.part, task.rows, opened=opened)


@dataclass(frozen=True)
class _Probe:
    part: PartTask
    rows: np.ndarray


def _after_crash(executor: Executor, flight: _Flight) -> _Flight:
    """The same part again; carefully, one operator at a time, after a crash; without the guilty rows after two."""
    flight = _Flight(replace(flight.task, careful=True), flight.actor, flight.crashes + 1)
    if flight.crashes < _CRASHES_BEFORE_BISECTING:
        return flight
    settled = settle(flight.task)
    if settled.missing_step is None:
        return flight
    rows = PartRows(flight.task.store, flight.task.plan, flight.task.member, flight.task.marks)
    run = rows.operator(settled.missing_step)
    guilty = _guilty(executor, flight, np.flatnonzero((settled.fates == ALIVE) & ~run.computed))
    if not guilty:
        raise PartError(
            f"part {rows.name}, {run.step.label}: killed its worker {flight.crashes} times, but no row does it alone; "
            f"give the workers more memory, or fail the part's rows with --give-up {rows.name}"
        )
    number = 0
    for row in guilty:
        record = {"row": row, "error": f"killed the worker at {run.step.label}, alone and twice in company"}
        while not flight.task.store.put(layout.crash(rows.name, run.step.name, run.fingerprint, number), record):
            number += 1
    return replace(flight, crashes=0)


def _guilty(executor: Executor, flight: _Flight, rows: np.ndarray) -> list[int]:
    """The rows that kill a worker when they stand alone, found by halving."""
    if len(rows) == 0 or not _dies(executor, flight, rows):
        return []
    if len(rows) == 1:
        return [int(rows[0])]
    half = len(rows) // 2
    return _guilty(executor, flight, rows[:half]) + _guilty(executor, flight, rows[half:])


def _dies(executor: Executor, flight: _Flight, rows: np.ndarray) -> bool:
    handle = executor.submit(_probe, _Probe(flight.task, rows), actor=flight.actor)
    try:
        for _, result in executor.wait([handle]):
            result()
    except WorkerDied:
        return True
    return False
