"""How far the parts of a snapshot have come in one stage, by what is committed; and what workers must still do.

Parts go in blocks: a block that is complete leaves a roll-up record, so that the resume of a run over 500,000 parts
reads a few hundred records and not millions. A record stands under the plan's name, under which outcomes are final.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa

from curation.execution.worker import PartTask, Settled, settle
from curation.fates import Fates
from curation.ingest import Member
from curation.stage import Plan
from curation.storage import layout
from curation.storage.pool import read_pool
from curation.storage.store import FileRef, Store
from curation.storage.tables import put_table, read_table
from schemas.errors import PartError

BLOCK_PARTS = 1000  # of one roll-up record, and of one Prefect task
_MOST_RELATIVES = 64  # rows of one URL that each of them knows
_THREADS = min(8, os.cpu_count() or 1)

Result = TypeVar("Result")


def each(members: Sequence[Member], function: Callable[[Member], Result]) -> Iterator[tuple[Member, Result]]:
    """A function of parts, in their order, a few ahead of need; reading and SQL leave Python's lock: threads help."""
    waiting: deque[tuple[Member, Future[Result]]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            for member in members:
                waiting.append((member, threads.submit(function, member)))
                if len(waiting) > 2 * _THREADS:
                    done, result = waiting.popleft()
                    yield done, result.result()
            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()
        finally:
            for _, left in waiting:
                left.cancel()


class Settling:
    """The parts of one stage."""

    def __init__(self, store: Store, plan: Plan, stage: int, members: Sequence[Member], fates: Fates) -> None:
        self._store = store
        self._plan = plan
        self._stage = stage
        self._members = members
        self._fates = fates
        self._settled: dict[str, Settled] = {}
        self._recorded: set[int] = set()  # blocks that have their roll-up record
        self._stuck: dict[str, PartError | None] = {}  # parts that could not be finished, and why

    def settle(self) -> dict[str, Settled]:
        """How far every part has come."""
        for number in range(0, len(self._members), BLOCK_PARTS):
            block = self._members[number : number + BLOCK_PARTS]
            unknown = [member for member in block if member.part.name not in self._settled]
            if unknown:
                self._settled |= self._rolled_up(number, block) or self._looked_at(unknown)
        return self._settled

    def roll_up(self) -> None:
        """Record what complete blocks have come to; of a single block, the stage's decision says it."""
        for number in range(0, len(self._members), BLOCK_PARTS):
            block = self._members[number : number + BLOCK_PARTS]
            settled = [self._settled[member.part.name] for member in block]
            complete = all(one.missing_step is None for one in settled)
            if complete and number not in self._recorded and len(block) < len(self._members):
                codes = pa.table({"code": np.concatenate([one.fates for one in settled])})
                self._store.put(self._record(number), {"codes": put_table(self._store, codes).record()})
                self._recorded.add(number)

    def left(self) -> list[Member]:
        """Parts that lack something and are not stuck. Raises PartError where only stuck ones are left."""
        settled = self.settle()
        lacking = [member for member in self._members if settled[member.part.name].missing_step is not None]
        left = [member for member in lacking if member.part.name not in self._stuck]
        if lacking and not left:
            part = lacking[0].part.name
            raise self._stuck[part] or self._not_computed(part)
        return left

    def next_block(self) -> list[Member]:
        """The next parts for workers. A part waits for an earlier one that may fetch one of its URLs, to adopt that."""
        left = self.left()
        pictures = self._plan.picture_step
        fetching = {m.part.name for m in left if pictures is not None and self._missing_step(m) <= pictures}
        return [
            member
            for member in left
            if not any(part in fetching and part < member.part.name for _, part, _ in self._adoptable(member))
        ][:BLOCK_PARTS]

    def _missing_step(self, member: Member) -> int:
        step = self._settled[member.part.name].missing_step
        assert step is not None
        return step

    def _adoptable(self, member: Member) -> Sequence[tuple[int, str, int]]:
        return self._neighbours.get(member.part.name, ())

    def tasks(self, members: Sequence[Member]) -> Iterator[tuple[PartTask, bool]]:
        """(task, whether an actor must begin) for parts that lack something."""
        for member in members:
            step = self._plan.producer(self._missing_step(member))
            yield self._task(member, tuple(self._adoptable(member))), step.actor

    def worked(self, members: Sequence[Member], error: PartError | None) -> None:
        """Workers have been at these parts; what counts is what is committed. `error` is theirs."""
        for member in members:
            self._settled.pop(member.part.name)
        settled = self.settle()
        self._stuck |= {m.part.name: error for m in members if settled[m.part.name].missing_step is not None}
        self.roll_up()

    def _looked_at(self, members: Sequence[Member]) -> dict[str, Settled]:
        return {member.part.name: one for member, one in each(members, lambda member: settle(self._task(member)))}

    def _rolled_up(self, number: int, block: Sequence[Member]) -> dict[str, Settled] | None:
        if len(block) == len(self._members) or (found := self._store.get(self._record(number))) is None:
            return None
        self._recorded.add(number)
        codes = read_table(self._store, FileRef(**found["codes"]))["code"].to_numpy()
        cut = np.split(codes, np.cumsum([member.part.rows for member in block])[:-1])
        return {member.part.name: Settled(own.copy()) for member, own in zip(block, cut, strict=True)}

    def _record(self, number: int) -> str:
        return layout.plan(self._plan.name, f"stage-{self._stage:03d}-parts-{number:06d}")

    def _task(self, member: Member, neighbours: tuple[tuple[int, str, int], ...] = ()) -> PartTask:
        part = member.part.name
        marks = self._fates.marks.get(part, {})
        return PartTask(self._store, self._plan, self._stage, member, self._fates.codes[part], marks, neighbours)

    def _not_computed(self, part: str) -> PartError:
        settled = self._settled[part]
        assert settled.missing_step is not None
        return PartError(
            f"part {part}: {settled.missing_rows} rows were not computed at "
            f"{self._plan.steps[settled.missing_step].label}; run the same again, or fail these rows by decision: "
            f"--give-up {part}"
        )

    @cached_property
    def _neighbours(self) -> dict[str, list[tuple[int, str, int]]]:
        """For each part, rows whose URL stands in other parts too: (row, part there, row there).

        Of a URL with very many captions each row knows some: the first ones, and those that came just before it.
        """
        families: dict[tuple[str, int], list[tuple[str, int]]] = {}  # by the row that had the URL first
        for ref in read_pool(self._store).shared if self._plan.pictures else ():
            for pair in read_table(self._store, ref).to_pylist():
                home = pair["home_part"], pair["home_row"]
                families.setdefault(home, [home]).append((pair["part"], pair["row"]))
        found: dict[str, list[tuple[int, str, int]]] = {}
        for family in families.values():
            for place, (part, row) in enumerate(family):
                few = family if len(family) <= _MOST_RELATIVES else _relatives(family, place)
                found.setdefault(part, []).extend((row, *other) for other in few if other[0] != part)
        return found


def _relatives(family: list[tuple[str, int]], place: int) -> list[tuple[str, int]]:
    half = _MOST_RELATIVES // 2
    return list(dict.fromkeys(family[:half] + family[max(0, place - half) : place]))
