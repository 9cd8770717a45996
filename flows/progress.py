"""How a run goes: counted here, shown by views (terminal, plain lines, status file, Prefect)."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from curation.execution.worker import FIRST_STEP, Worked
from curation.stage import Plan


@dataclass
class Tally:
    """Where a run is. Rows are alive rows of the stage; rates count only what this run did."""

    name: str = ""
    activity: str = "starts"
    stage: int = 0
    stages: int = 0
    label: str = ""
    rows: int = 0
    rows_done: int = 0
    rows_before: int = 0  # done when the stage began
    parts: int = 0
    parts_done: int = 0
    stage_started: float = 0.0
    last_part: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)  # in the running stage, by step
    decided: list[tuple[str, int, int]] = field(default_factory=list)  # (step, rows in, rows out)
    shards: int = 0
    shards_written: int = 0

    @property
    def rows_per_s(self) -> float | None:
        """Rows of the stage per second so far; None before the first part is finished."""
        seconds = self.last_part - self.stage_started
        return (self.rows_done - self.rows_before) / seconds if self.parts_done and seconds > 0 else None

    def eta_s(self, now: float) -> float | None:
        """Seconds until the stage is finished, if it goes on like this; None where it took longer than that already."""
        rate, left = self.rows_per_s, self.rows - self.rows_done
        if not rate:
            return None
        seconds = left / rate - (now - self.last_part)
        return seconds if seconds > 0 else None if left else 0.0


class View(Protocol):
    """Who shows a tally."""

    def show(self, tally: Tally, *, now: bool) -> None:
        """Show it; `now` is False where it may wait a little."""

    def close(self) -> None:
        """There is nothing more to show."""


class Progress:
    """Counts what a run reports, and hands it to views. Implements `curation.run.Watcher`."""

    def __init__(self, views: Sequence[View] = (), *, every_s: float = 0.5) -> None:
        self.tally = Tally()
        self.views = list(views)
        self._plan: Plan | None = None
        self._steps: range = range(0)  # of the running stage
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, args=(every_s,), daemon=True, name="progress")
        if self.views:
            self._ticker.start()

    def begin(self, name: str, plan: Plan) -> None:
        """The run's name and plan are known."""
        self._plan = plan
        self.tally.name, self.tally.stages = name, len(plan.stages)
        self._show(now=True)

    def doing(self, activity: str) -> None:
        """What the run does between stages, in a few words."""
        self.tally.activity, self.tally.label = activity, ""
        self._show(now=True)

    def enter(self, number: int) -> None:
        """The stage of that number comes next."""
        assert self._plan is not None
        self.tally.stage = number
        steps = [step.index for step in self._plan.stages[number].steps]
        self._steps = range(min(steps, default=0), max(steps, default=-1) + 1)

    def stage(self, name: str, parts: int, rows: int, rows_done: int) -> None:
        """A stage has begun."""
        tally = self.tally
        tally.activity, tally.label, tally.parts, tally.parts_done = "computes", name, parts, 0
        tally.rows, tally.rows_done, tally.rows_before = rows, rows_done, rows_done
        tally.stage_started = tally.last_part = time.time()
        tally.dropped = {}
        self._show(now=True)

    def part(self, worked: Worked, rows: int) -> None:
        """A part is finished."""
        with self._lock:
            self.tally.parts_done += 1
            self.tally.rows_done += rows
            self.tally.last_part = time.time()
            self._count_drops(worked.settled.fates)
        self._show(now=False)

    def decided(self, label: str, rows_in: int, rows_out: int) -> None:
        """A step's drops are final."""
        self.tally.decided.append((label, rows_in, rows_out))
        self.tally.dropped.pop(label, None)
        self._show(now=False)

    def shards(self, written: int, total: int) -> None:
        """So many shards are written."""
        self.tally.activity, self.tally.label = "writes shards", ""
        self.tally.shards, self.tally.shards_written = total, written
        self._show(now=written == total)

    def close(self) -> None:
        """The run has ended."""
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join(timeout=2)
        for view in self.views:
            view.close()

    def _count_drops(self, fates: np.ndarray) -> None:
        assert self._plan is not None
        for index in self._steps:
            gone = int((fates == FIRST_STEP + index).sum())
            if gone:
                label = self._plan.steps[index].label
                self.tally.dropped[label] = self.tally.dropped.get(label, 0) + gone

    def _show(self, *, now: bool) -> None:
        with self._lock:  # the ticker shows too
            for view in self.views:
                view.show(self.tally, now=now)

    def _tick(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            self._show(now=False)


def as_record(tally: Tally, now: float) -> dict[str, Any]:
    """A tally as JSON."""
    from dataclasses import asdict

    return asdict(tally) | {"rows_per_s": tally.rows_per_s, "eta_s": tally.eta_s(now)}
