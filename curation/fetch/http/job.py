"""A request on its way, and the line in which requests wait for their turn."""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from curation.fetch.hosts.domains import registered_domain
from curation.fetch.http.transfer import Answer
from curation.fetch.http.urls import Target
from curation.fetch.outcomes import Fetched, Request


class Purpose(Enum):
    """What a request is for: a picture that a row wants, or what its site says about robots and reserved rights."""

    PICTURE = auto()
    ROBOTS = auto()
    TDMREP = auto()


@dataclass(eq=False)
class Job:
    """A request: where it stands, and what it has cost."""

    request: Request
    target: Target
    purpose: Purpose = Purpose.PICTURE
    site: str = ""  # whose file it fetches, if it is not for a picture
    attempts: int = 0
    redirects: int = 0
    attempt_s: float = 0.0  # in transfer, this attempt
    total_s: float = 0.0
    started: float = 0.0
    admitted: bool = False  # has begun a request that its domain has not been told the end of
    its_turn: bool = False  # was woken, and goes before those that wait for its domain
    last: Answer | None = None  # what the attempt before this one brought

    @property
    def domain(self) -> str:
        """Whose limits hold for it now."""
        return registered_domain(self.target.host)

    def result(self, answer: Answer) -> Fetched:
        """What came of it."""
        return Fetched(
            self.request.row,
            answer.status,
            answer.error,
            answer.body,
            answer.http_status,
            self.attempts,
            self.total_s,
            self.target.host,
            answer.content_type,
            self.redirects,
            time.time(),
            answer.detail,
        )


class Line:
    """Jobs that wait: those that may be tried now, those whose moment comes, those whose domain is busy."""

    def __init__(self) -> None:
        self.ready: deque[Job] = deque()
        self._later: list[tuple[float, int, Job | str]] = []  # heap by the moment; a domain is an alarm for who waits
        self._order = itertools.count()
        self._held: dict[str, deque[Job]] = {}
        self._alarms: dict[str, float] = {}  # when a domain's next one is due

    @property
    def next_moment(self) -> float | None:
        """When the first of those that wait for a moment comes, by the monotonic clock."""
        return self._later[0][0] if self._later else None

    def put_off(self, job: Job, wait_s: float) -> None:
        """Let a job wait for some seconds."""
        heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._order), job))

    def hold(self, job: Job, wait_s: float | None = None) -> None:
        """Let a job wait for its domain, in front of all others if it was its turn; `wait_s` is when to wake one."""
        held = self._held.setdefault(job.domain, deque())
        if job.its_turn:
            job.its_turn = False
            held.appendleft(job)
        else:
            held.append(job)
        if wait_s is not None and self._alarms.get(job.domain, float("inf")) > time.monotonic() + wait_s:
            self._alarms[job.domain] = time.monotonic() + wait_s
            heapq.heappush(self._later, (self._alarms[job.domain], next(self._order), job.domain))

    def go_on(self, jobs: list[Job]) -> None:
        """Let jobs be tried now, before all others."""
        self.ready.extendleft(reversed(jobs))

    def waiting(self, domain: str) -> int:
        """How many jobs wait for the domain."""
        return len(self._held.get(domain, ()))

    def holds(self, domain: str) -> bool:
        """Whether jobs wait for the domain."""
        return domain in self._held

    def wake(self, domain: str) -> None:
        """Let the first that waits for a domain try again."""
        held = self._held.get(domain)
        if held:
            job = held.popleft()
            job.its_turn = True
            self.ready.appendleft(job)
            if not held:
                del self._held[domain]

    def look_at_clock(self) -> None:
        """Make ready those whose moment has come."""
        while self._later and self._later[0][0] <= time.monotonic():
            due = heapq.heappop(self._later)[2]
            if isinstance(due, str):
                self._alarms.pop(due, None)
                self.wake(due)
            else:
                self.ready.append(due)

    def drain(self) -> Iterator[Job]:
        """All that wait, out of the line."""
        waiting = [*self.ready, *(due for _, _, due in self._later if isinstance(due, Job))]
        waiting += itertools.chain.from_iterable(self._held.values())
        self.ready.clear()
        self._later.clear()
        self._held.clear()
        self._alarms.clear()
        yield from waiting
