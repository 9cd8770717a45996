"""Fetches many URLs at once, in a thread of its own, while the consumer decodes what has come.

The requests are drawn in the consumer's thread: what they are made of need not be thread-safe. At most
`_WINDOW · concurrency` of them are under way, and no transfer starts while `buffer_bytes` wait for the consumer; so
memory stays within that and what the running transfers bring (`concurrency · max_bytes` at the very worst).
"""

import heapq
import itertools
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from curation.fetch import outcomes
from curation.fetch.certificates import certificates
from curation.fetch.curl_loop import CurlLoop
from curation.fetch.outcomes import RETRIED, Fetched, Request
from curation.fetch.policy import FetchPolicy, HostPolicy
from curation.fetch.transfer import Answer, Transfer
from curation.fetch.urls import Target, UrlError, parse_url, redirected
from schemas.errors import RunError

_WINDOW = 4  # requests waiting, running or done but not taken, per transfer that may run
_PATIENCE_S = 1.0  # libcurl waits for name look-ups that hang before it lets go of them
_UNTIL_ANOTHER_ENDS = float("inf")


def fetch(
    requests: Iterator[Request], policy: FetchPolicy, hosts: HostPolicy, patience_s: float | None = None
) -> Generator[Fetched | None, None, None]:
    """What comes of each request, in the order in which they end; exactly one result per request.

    Who has more to wait for than fetches gets a None whenever none has ended for `patience_s`.
    Requests are drawn ahead of the results. When the iterator is closed, running transfers are dropped. Raises
    RunError where nothing can be fetched at all (no certificates on this machine).
    """
    engine = _Engine(policy, hosts)
    engine.start()
    under_way, source = 0, iter(requests)
    try:
        while True:
            for request in itertools.islice(source, _WINDOW * policy.concurrency - under_way):
                engine.submit(request)
                under_way += 1
            if not under_way:
                return
            result = engine.next_result(patience_s)
            under_way -= result is not None
            yield result
    finally:
        engine.close()


@dataclass
class _Job:
    """A request on its way: where it stands, and what it has cost."""

    request: Request
    target: Target
    attempts: int = 1
    redirects: int = 0
    attempt_s: float = 0.0  # in transfer, this attempt
    total_s: float = 0.0
    started: float = 0.0
    limited: bool = False  # takes one of its host's places


class _Engine(threading.Thread):
    """The fetching thread. `submit`, `next_result` and `close` belong to the consumer's, all else to its own."""

    def __init__(self, policy: FetchPolicy, hosts: HostPolicy) -> None:
        super().__init__(name="fetch", daemon=True)
        self._policy, self._hosts, self._guard = policy, hosts, policy.guard
        self._ca_file = certificates()
        self._loop = CurlLoop()
        self._inbox: deque[Request] = deque()
        self._outbox: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
        self._stopping = False
        self._finished_bytes = self._taken_bytes = 0  # each written by one thread only
        self._ready: deque[_Job] = deque()
        self._later: list[tuple[float, int, _Job]] = []  # heap by the moment at which they become ready
        self._order = itertools.count()
        self._running: dict[Transfer, _Job] = {}
        self._idle: list[Transfer] = []
        self._named_hosts: set[str] = set()  # that were found in a network of allow_networks

    def submit(self, request: Request) -> None:
        """Take a request in."""
        self._inbox.append(request)
        self._loop.ring()

    def next_result(self, patience_s: float | None = None) -> Fetched | None:
        """Wait for the next result, but no longer than that."""
        try:
            result = self._outbox.get(timeout=patience_s)
        except queue.Empty:
            return None
        if isinstance(result, BaseException):
            raise RunError(f"the fetching thread ended: {type(result).__name__}: {result}") from result
        self._taken_bytes += len(result.body or b"")
        self._loop.ring()
        return result

    def close(self) -> None:
        """Drop what runs and end the thread; one that hangs in a name look-up ends by itself, in seconds."""
        self._stopping = True
        self._loop.ring()
        self.join(_PATIENCE_S)

    def run(self) -> None:
        """Fetch until told to stop."""
        try:
            while not self._stopping:
                self._take_in()
                self._start_ready()
                for transfer, answer in self._loop.turn(self._later[0][0] if self._later else None):
                    self._idle.append(transfer)
                    self._take_answer(self._running.pop(transfer), answer)
        except BaseException as error:  # the consumer must not wait for ever
            self._outbox.put(error)
        for job in self._running.values():
            self._release(job, outcomes.CONNECT)
        for transfer in self._idle:
            transfer.handle.close()
        self._loop.close()

    def _take_in(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            try:
                self._ready.append(_Job(request, parse_url(request.url)))
            except UrlError as error:
                self._outbox.put(Fetched(request.row, error.status, str(error)))
        while self._later and self._later[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._later)[2])

    def _start_ready(self) -> None:
        """Start what may start; who waits for a place at its host keeps its place in the line."""
        waiting: list[_Job] = []
        while self._ready and len(self._running) < self._policy.concurrency and not self._buffer_full:
            job = self._ready.popleft()
            wait_s = self._admit(job)
            if wait_s == 0:
                self._start_job(job)
            elif wait_s == _UNTIL_ANOTHER_ENDS:
                waiting.append(job)
            else:
                self._put_off(job, wait_s)
        self._ready.extendleft(reversed(waiting))

    @property
    def _buffer_full(self) -> bool:
        return self._finished_bytes - self._taken_bytes > self._policy.buffer_bytes

    def _admit(self, job: _Job) -> float:
        host = job.target.host
        job.limited = not (host in self._named_hosts or self._guard.names(host))
        return self._hosts.admit(host) if job.limited else 0.0

    def _start_job(self, job: _Job) -> None:
        refusal = None if self._guard.allowed else self._guard.port_refusal(job.target.port)
        if refusal:  # no network is named, so the address need not be looked up
            self._release(job, refusal[0])
            self._finish(job, Answer(*refusal))
            return
        transfer = self._idle.pop() if self._idle else Transfer(self._policy, self._guard, self._ca_file)
        transfer.aim(job.target, self._policy.timeout_s - job.attempt_s)
        job.started = time.monotonic()
        self._running[transfer] = job
        self._loop.start(transfer)

    def _put_off(self, job: _Job, wait_s: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + wait_s, next(self._order), job))

    def _take_answer(self, job: _Job, answer: Answer) -> None:
        spent_s = time.monotonic() - job.started
        job.attempt_s += spent_s
        job.total_s += spent_s
        if answer.named_network:
            self._named_hosts.add(job.target.host)
        asked_s = answer.retry_after_s or 0.0
        self._release(job, answer.status, min(asked_s, self._policy.most_retry_after_s))
        patient = job.attempts <= self._policy.retries and asked_s <= self._policy.most_retry_after_s
        if answer.location is not None:
            self._follow(job, answer)
        elif answer.status in RETRIED and patient:
            self._retry(job, asked_s)
        else:
            self._finish(job, answer)

    def _retry(self, job: _Job, asked_s: float) -> None:
        pause_s = self._policy.backoff_s * 2 ** (job.attempts - 1) * random.uniform(0.5, 1.0)
        job.target = parse_url(job.request.url)
        job.attempts, job.redirects, job.attempt_s = job.attempts + 1, 0, 0.0
        self._put_off(job, max(pause_s, asked_s))

    def _follow(self, job: _Job, answer: Answer) -> None:
        """Go where a redirect leads: every hop passes through the same policy as the first URL."""
        policy, failure = self._policy, None
        job.redirects += 1
        if job.redirects > policy.most_redirects:
            failure = outcomes.REDIRECTS, f"the server redirects more than {policy.most_redirects} times"
        elif job.attempt_s >= policy.timeout_s:
            failure = outcomes.TIMEOUT, f"no picture after {policy.timeout_s:g} s of redirects"
        else:
            try:
                job.target = redirected(job.target, answer.location or "")
            except UrlError as error:
                failure = error.status, f"redirected: {error}"
        if failure:
            self._finish(job, Answer(*failure, http_status=answer.http_status))
        else:
            self._ready.appendleft(job)

    def _release(self, job: _Job, status: str, wait_s: float = 0.0) -> None:
        if job.limited:
            self._hosts.done(job.target.host, status, wait_s)

    def _finish(self, job: _Job, answer: Answer) -> None:
        self._finished_bytes += len(answer.body or b"")
        result = Fetched(
            job.request.row,
            answer.status,
            answer.error,
            answer.body,
            answer.http_status,
            job.attempts,
            job.total_s,
            job.target.host,
            answer.content_type,
            job.redirects,
        )
        self._outbox.put(result)
