"""What an executor is, and how tasks go through one: bounded, passed on between kinds of workers, crashes survived."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from curation.execution.crashes import Hunt, hunt
from curation.execution.worker import PartTask, Worked
from curation.stage import OperatorStep
from curation.storage.store import Store
from schemas.errors import PartError, RunError

_CRASHES_BEFORE_HUNTING = 2
_MOST_HUNTS = 2  # what kills a worker need not be a row: somebody else's memory, a node that is gone
_IN_FLIGHT_PER_SLOT = 3


class WorkerDied(Exception):
    """The worker's process ended while it had a task; `blamed` where it was this task that it was at."""

    def __init__(self, *, blamed: bool = True) -> None:
        super().__init__(blamed)
        self.blamed = blamed


class Executor(Protocol):
    """Where tasks run. Executors differ in where, never in what."""

    @property
    def spreads(self) -> bool:
        """Whether its workers have processors that this process does not have."""

    def share(self, value: Any) -> Callable[[], Any]:
        """What gives a large value to many tasks without sending it to each."""

    def slots(self, actor: bool) -> int:
        """How many tasks of a kind run at once."""

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> Any:
        """Start `function(task, actor=…, opened=…)` in a worker and return a handle."""

    def wait(self, handles: list[Any]) -> list[tuple[Any, Callable[[], Any]]]:
        """Wait until at least one handle is done; (handle, function that returns its result or raises WorkerDied)."""

    def close(self) -> None:
        """Stop the workers, and what they are at."""


@dataclass(frozen=True)
class _Flight:
    """A part on its way; while rows are hunted that kill its worker, `suspects` run alone and nothing is committed."""

    task: PartTask
    actor: bool
    crashes: int = 0
    hunts: int = 0  # that found nothing
    hunt: Hunt | None = None
    suspects: np.ndarray | None = None

    def submit(self, executor: Executor) -> Any:
        if self.suspects is None:
            return executor.submit(_work, self.task, actor=self.actor)
        return executor.submit(_probe, _Probe(self.task, self.suspects), actor=self.actor)


@dataclass(frozen=True)
class _Probe:
    part: PartTask
    rows: np.ndarray


def run_parts(executor: Executor, tasks: Iterator[tuple[PartTask, bool]]) -> Iterator[Worked]:
    """Take parts through a stage; (task, whether an actor must begin). Yields each part as it is finished.

    A part that cannot be finished raises PartError when all others are through; any other error stops the run at once.
    """
    flights: dict[Any, _Flight] = {}
    waiting: list[_Flight] = []
    stuck: dict[str, PartError] = {}
    while True:
        _fill(executor, flights, waiting, tasks)
        if not flights:
            break
        for handle, result in executor.wait(list(flights)):
            flight = flights.pop(handle)
            try:
                landed = _land(flight, result)
            except PartError as error:
                stuck[flight.task.member.part.name] = error
                continue
            if isinstance(landed, Worked):
                yield landed
            else:
                waiting.append(landed)
    if stuck:
        first = next(iter(stuck.values()))
        others = f" ({len(stuck) - 1} other parts could not be finished either)" if len(stuck) > 1 else ""
        decision = " ".join(f"--give-up {part}" for part in stuck)
        raise PartError(f"{first}{others}; run the same again, or fail their rows by decision: {decision}") from first


def open_models(executor: Executor, store: Store, steps: Iterable[OperatorStep]) -> None:
    """Open operators in the worker that will run them, so that a model that cannot be loaded costs no part.

    Raises RunError.
    """
    for _ in run_each(executor, _open, ((step.label, (step, store)) for step in steps), actor=True):
        pass


def run_each(
    executor: Executor, function: Callable[..., Any], tasks: Iterator[tuple[str, Any]], *, actor: bool = False
) -> Iterator[tuple[str, Any]]:
    """(name, task) → (name, result), in any order; a task may lose its worker once. Raises RunError."""
    flights: dict[Any, tuple[str, Any, int]] = {}
    again: list[tuple[str, Any, int]] = []
    while True:
        while len(flights) < executor.slots(actor) * _IN_FLIGHT_PER_SLOT:
            following = again.pop() if again else next(((name, task, 0) for name, task in tasks), None)
            if following is None:
                break
            flights[executor.submit(function, following[1], actor=actor)] = following
        if not flights:
            return
        for handle, result in executor.wait(list(flights)):
            name, task, crashes = flights.pop(handle)
            try:
                yield name, result()
            except WorkerDied as death:
                crashes += death.blamed
                if crashes == _CRASHES_BEFORE_HUNTING:
                    raise RunError(f"{name}: killed its worker {crashes} times; give the workers more memory") from None
                again.append((name, task, crashes))


def _fill(
    executor: Executor, flights: dict[Any, _Flight], waiting: list[_Flight], tasks: Iterator[tuple[PartTask, bool]]
) -> None:
    """Submit what the workers can hold: parts that were begun first, then new ones, a few per slot."""
    room = {kind: executor.slots(kind) * _IN_FLIGHT_PER_SLOT for kind in (False, True)}
    most = sum(room.values())
    for flight in flights.values():
        room[flight.actor] -= 1
    for flight in list(waiting):
        if room[flight.actor] > 0:
            waiting.remove(flight)
            room[flight.actor] -= 1
            flights[flight.submit(executor)] = flight
    while len(flights) + len(waiting) < most:
        following = next(tasks, None)
        if following is None:
            return
        flight = _Flight(*following)
        if room[flight.actor] > 0:
            room[flight.actor] -= 1
            flights[flight.submit(executor)] = flight
        else:
            waiting.append(flight)


def _land(flight: _Flight, result: Callable[[], Any]) -> Worked | _Flight:
    """The part as it is finished, or what must be submitted next for it. Raises PartError."""
    worked: Worked | None = None
    try:
        worked = result()
    except WorkerDied as death:
        if not death.blamed:
            return flight
    if flight.hunt is not None:
        return _hunted(flight, worked is None)
    if worked is None:
        return _crashed(flight)
    return worked if worked.waits_for_actor is None else replace(flight, actor=worked.waits_for_actor)


def _crashed(flight: _Flight) -> _Flight:
    """The same part again, one operator at a time, so that a crash tells at which it was; after two, the hunt."""
    again = replace(flight, task=replace(flight.task, careful=True), crashes=flight.crashes + 1)
    if again.crashes < _CRASHES_BEFORE_HUNTING:
        return again
    return _hunted(replace(again, hunt=hunt(again.task)), None)


def _hunted(flight: _Flight, died: bool | None) -> _Flight:
    """The hunt's next step (None: the first), or the part again without the rows that it found. Raises PartError."""
    assert flight.hunt is not None
    try:
        return replace(flight, suspects=flight.hunt.send(died))  # type: ignore[arg-type]
    except StopIteration as end:
        hunts = flight.hunts + (not end.value)
    if hunts == _MOST_HUNTS:
        raise PartError(
            f"part {flight.task.member.part.name}: killed its worker {hunts * _CRASHES_BEFORE_HUNTING} times, but no "
            "row does it alone; give the workers more memory"
        )
    return _Flight(flight.task, flight.actor, hunts=hunts)


def _work(task: PartTask, **where: Any) -> Worked:
    from curation.execution.worker import work

    return work(task, **where)


def _open(task: tuple[OperatorStep, Store], *, actor: bool, opened: Any) -> None:
    opened.get(*task)


def _probe(task: _Probe, *, actor: bool, opened: Any) -> bool:
    """Whether the worker is alive after it: True, or no answer."""
    from curation.execution.worker import probe

    probe(task.part, task.rows, opened=opened)
    return True
