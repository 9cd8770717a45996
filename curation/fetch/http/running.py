"""The transfers that run, and handles for the next ones.

A transfer that hears nothing for a while gives its place to another: hosts that never answer cost a descriptor each,
and hardly any time.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator

from curation.fetch.http.curl_loop import CurlLoop
from curation.fetch.http.job import Job, Purpose
from curation.fetch.http.transfer import Answer, Transfer
from curation.fetch.policy import FetchPolicy

_MOST_STALLED = 3  # transfers that run beside the others, per transfer that may run


class Running:
    """Starts transfers for jobs; belongs to the fetching thread, but `stalled` may be read by any."""

    def __init__(self, policy: FetchPolicy, loop: CurlLoop, ca_file: str) -> None:
        self._policy, self._loop, self._ca_file = policy, loop, ca_file
        self._guard = policy.guard
        self._jobs: dict[Transfer, Job] = {}
        self._unheard: deque[tuple[float, Transfer, Job]] = deque()  # by when they will have heard nothing for long
        self._stalled: set[Transfer] = set()
        self._idle: list[Transfer] = []

    @property
    def jobs(self) -> list[Job]:
        """Whose transfers run."""
        return list(self._jobs.values())

    @property
    def stalled(self) -> int:
        """How many transfers run beside the others because they hear nothing."""
        return min(len(self._stalled), _MOST_STALLED * self._policy.concurrency)

    @property
    def full(self) -> bool:
        """Whether no further transfer may run."""
        return len(self._jobs) - self.stalled >= self._policy.concurrency

    @property
    def next_moment(self) -> float | None:
        """When the next of them will have heard nothing for long."""
        return self._unheard[0][0] if self._unheard else None

    def start(self, job: Job) -> None:
        """Let a job's request run."""
        transfer = self._idle.pop() if self._idle else Transfer(self._policy, self._guard, self._ca_file)
        left_s = self._policy.timeout_s - job.attempt_s
        transfer.aim(job.target, left_s, site_file=job.purpose is not Purpose.PICTURE)
        job.started = time.monotonic()
        job.attempts += job.redirects == 0
        self._jobs[transfer] = job
        self._unheard.append((job.started + self._policy.stalled_s, transfer, job))
        self._loop.start(transfer)

    def turn(self, until: float | None) -> Iterator[tuple[Job, Answer]]:
        """Wait until something happens, or a moment comes; what has ended, and how."""
        for transfer, answer in self._loop.turn(until):
            self._stalled.discard(transfer)
            self._idle.append(transfer)
            job = self._jobs.pop(transfer)
            spent_s = time.monotonic() - job.started
            job.attempt_s += spent_s
            job.total_s += spent_s
            yield job, answer

    def look_for_stalled(self, is_alive: Callable[[str], bool]) -> None:
        """Find those that have heard nothing for long, but for hosts that are merely busy: more would make it worse."""
        now = time.monotonic()
        while self._unheard and self._unheard[0][0] <= now:
            _, transfer, job = self._unheard.popleft()
            if self._jobs.get(transfer) is job and not transfer.heard and not is_alive(job.target.host):
                self._stalled.add(transfer)

    def drop(self) -> Iterator[Job]:
        """End all of them."""
        jobs, self._jobs = self._jobs, {}
        self._stalled.clear()
        self._unheard.clear()
        for transfer, job in jobs.items():
            self._loop.drop(transfer)
            self._idle.append(transfer)
            yield job

    def close(self) -> None:
        """Let go of the handles."""
        for transfer in self._idle:
            transfer.handle.close()
        self._loop.close()
