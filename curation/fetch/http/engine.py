"""Fetches many URLs at once, in a thread of its own, while the consumer decodes what has come.

The requests are drawn in the consumer's thread: what they are made of need not be thread-safe. At most
`_WINDOW · concurrency` of them are under way, beside those that hear nothing, and no transfer starts while
`buffer_bytes` wait for the consumer; so memory stays within that and what the running transfers bring.

What happens to a request: course.py. Whom it may ask, and when: host_policy.py and site_checks.py.
"""

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator

from curation.fetch import outcomes
from curation.fetch.hosts.domains import is_address
from curation.fetch.hosts.host_policy import UNTIL_ANOTHER_ENDS, HostPolicy
from curation.fetch.hosts.site_checks import SiteChecks
from curation.fetch.http.certificates import certificates
from curation.fetch.http.course import after
from curation.fetch.http.curl_loop import CurlLoop
from curation.fetch.http.job import Job, Line, Purpose
from curation.fetch.http.names import RESOLVED, Names
from curation.fetch.http.running import Running
from curation.fetch.http.transfer import Answer
from curation.fetch.http.urls import UrlError, parse_url
from curation.fetch.outcomes import Fetched, Request
from curation.fetch.policy import FetchPolicy
from schemas.errors import PairmillError, RunError

_WINDOW = 4  # requests waiting, running or done but not taken, per transfer that may run
_PATIENCE_S = 1.0  # libcurl waits for name look-ups that hang before it lets go of them
_DROPPED = "dropped"  # how a request ends that nobody waits for any more


def fetch(
    requests: Iterator[Request], policy: FetchPolicy, hosts: HostPolicy, patience_s: float | None = None
) -> Generator[Fetched | None, None, None]:
    """What comes of each request, in the order in which they end; exactly one result per request.

    Who has more to wait for than fetches gets a None whenever none has ended for `patience_s`.
    Requests are drawn ahead of the results. When the iterator is closed, running transfers are dropped. Raises
    RunError where nothing can be fetched at all (no certificates on this machine, a resolver that does not work).
    """
    engine = _Engine(policy, hosts)
    engine.start()
    under_way, source = 0, iter(requests)
    try:
        while True:
            room = _WINDOW * policy.concurrency + engine.stalled - under_way
            for request in itertools.islice(source, max(0, room)):
                engine.submit(request)
                under_way += 1
            if not under_way:
                return
            result = engine.next_result(patience_s)
            under_way -= result is not None
            yield result
    finally:
        engine.close()


class _Engine(threading.Thread):
    """The fetching thread. `submit`, `next_result` and `close` belong to the consumer's, all else to its own."""

    def __init__(self, policy: FetchPolicy, hosts: HostPolicy) -> None:
        super().__init__(name="fetch", daemon=True)
        self._policy, self._hosts, self._guard = policy, hosts, policy.guard
        self._loop = CurlLoop()
        self._running = Running(policy, self._loop, certificates())
        self._inbox: deque[Request] = deque()
        self._outbox: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
        self._stopping = False
        self._finished_bytes = self._taken_bytes = 0  # each written by one thread only
        self._starved = False  # whether requests wait for the consumer to take results
        self._line = Line()
        self._names: Names[Job] = Names(self._loop.ring)
        self._sites = SiteChecks(policy, hosts)
        self._named_hosts: set[str] = set()  # that were found in a network of allow_networks
        self._deadline = None if policy.part_deadline_s is None else time.monotonic() + policy.part_deadline_s
        self._over = False

    @property
    def stalled(self) -> int:
        """How many transfers hear nothing; so many more requests may be under way."""
        return self._running.stalled

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
        if isinstance(result, PairmillError):
            raise result
        if isinstance(result, BaseException):
            raise RunError(f"the fetching thread ended: {type(result).__name__}: {result}") from result
        self._taken_bytes += len(result.body or b"")
        if self._starved:
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
            self._hosts.begin(self._loop.ring, self._line.waiting)
            while not self._stopping:
                self._turn()
            for job in self._running.jobs:
                self._release(job, _DROPPED)
        except BaseException as error:  # the consumer must not wait for ever
            self._outbox.put(error)
        with contextlib.suppress(Exception):  # what sites said is lost then, and asked again
            self._hosts.end()
        self._names.close()
        self._running.close()

    def _turn(self) -> None:
        """One round: take in what has come, start what may start, wait until something happens, and take that."""
        self._take_in()
        domains, sites = self._hosts.turn()
        for domain in domains:
            self._line.wake(domain)
        for site in sites:
            self._line.go_on(self._sites.into(site))
        self._line.look_at_clock()
        self._running.look_for_stalled(self._hosts.is_alive)
        while self._line.ready and not self._running.full and not self._buffer_full:
            self._try(self._line.ready.popleft())
        for job, answer in self._running.turn(self._next_moment):
            self._take_answer(job, answer)
        for job, status, error in self._names.answers():
            self._take_name(job, status, error)
        if self._deadline is not None and not self._over and time.monotonic() >= self._deadline:
            self._end_all()

    @property
    def _next_moment(self) -> float | None:
        deadline = None if self._over else self._deadline
        stalled = self._running.next_moment if self._line.ready else None
        moments = self._line.next_moment, self._hosts.next_turn, deadline, stalled
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _buffer_full(self) -> bool:
        self._starved = True  # before looking, or a result that is taken meanwhile would ring no bell
        self._starved = self._finished_bytes - self._taken_bytes > self._policy.buffer_bytes
        return self._starved

    def _take_in(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            try:
                job = Job(request, parse_url(request.url))
            except UrlError as error:
                self._outbox.put(Fetched(request.row, error.status, str(error), at=time.time()))
                continue
            if self._over:
                self._finish(job, self._too_late)
            else:
                self._line.ready.append(job)

    def _try(self, job: Job) -> None:
        """Start a job if its site and its domain let it; else it waits there, in its turn."""
        if unsafe := self._guard.early_refusal(job.target.host, job.target.port):
            self._refuse(job, Answer(*unsafe))
        elif blocked := self._policy.block_lists.host(job.target.host):
            self._refuse(job, Answer(outcomes.BLOCKED_DOMAIN, f"{blocked} is on the list of blocked domains"))
        elif self._sites.keeps(job):
            self._pass_turn_on(job)
            self._line.go_on(self._sites.into(job.target.site))
        elif refusal := self._sites.refusal(job):
            self._refuse(job, refusal)
        elif down := self._hosts.refusal(job.target.host):
            self._refuse(job, job.last or Answer(outcomes.HOST_DOWN, down))
        else:
            self._admit(job)

    def _admit(self, job: Job) -> None:
        host = job.target.host
        limited = not (host in self._named_hosts or self._guard.names(host))
        if limited and not job.its_turn and self._line.holds(job.domain):
            self._line.hold(job)
            return
        wait_s = self._hosts.admit(host, limited=limited)
        if wait_s > 0:
            self._line.hold(job, None if wait_s == UNTIL_ANOTHER_ENDS else wait_s)
            return
        job.admitted = True
        self._running.start(job)
        self._pass_turn_on(job)

    def _refuse(self, job: Job, answer: Answer) -> None:
        self._finish(job, answer)
        self._pass_turn_on(job)

    def _pass_turn_on(self, job: Job) -> None:
        """A job that was woken has left its domain's line, so the next one there is woken."""
        if job.its_turn:
            job.its_turn = False
            self._line.wake(job.domain)

    def _take_answer(self, job: Job, answer: Answer) -> None:
        host = job.target.host
        if answer.named_network:
            self._named_hosts.add(host)
        self._release(job, answer.status, answer.http_status, answer.retry_after_s or 0.0)
        if answer.status == outcomes.DNS and not answer.timed_out:
            job.last = answer
            self._names.ask(host, job)
            return
        if not is_address(host):
            self._names.note(host, outcomes.DNS if answer.status == outcomes.DNS else RESOLVED)
        self._go_on(job, answer)

    def _take_name(self, job: Job, status: str, error: str) -> None:
        """The resolver was asked why it had no answer; perhaps it has one now."""
        self._names.note(job.target.host, status)
        if status == RESOLVED:
            self._go_on(job, job.last or Answer(outcomes.DNS, error))
        else:
            self._go_on(job, Answer(status, f"the host's name could not be resolved: {error}"))

    def _go_on(self, job: Job, answer: Answer) -> None:
        following = after(job, answer, self._policy)
        if isinstance(following, Answer):
            self._finish(job, following)
        elif following > 0:
            self._line.put_off(job, following)
        else:
            self._line.ready.appendleft(job)

    def _release(self, job: Job, status: str, http_status: int | None = None, asked_s: float = 0.0) -> None:
        if job.admitted:
            job.admitted = False
            self._hosts.done(job.target.host, status, http_status, asked_s)
            self._line.wake(job.domain)

    def _end_all(self) -> None:
        """The time is over: what waits and what runs fails, and so does all that comes."""
        self._over = True
        for job in self._running.drop():
            self._release(job, _DROPPED)
            self._finish(job, self._too_late)
        for job in [*self._line.drain(), *self._names.drain(), *self._sites.drain()]:
            self._finish(job, self._too_late)

    @property
    def _too_late(self) -> Answer:
        return Answer(outcomes.DEADLINE, f"not done in the {self._policy.part_deadline_s:g} s that its part had")

    def _finish(self, job: Job, answer: Answer) -> None:
        if job.purpose is Purpose.PICTURE:
            self._finished_bytes += len(answer.body or b"")
            self._outbox.put(job.result(answer))
        elif not self._over:
            self._line.go_on(self._sites.finished(job, answer))
