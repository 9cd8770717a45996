"""Fetches many URLs at once, in a thread of its own, while the consumer decodes what has come.

The requests are drawn in the consumer's thread: what they are made of need not be thread-safe. At most
`_WINDOW · concurrency` of them are under way, and no transfer starts while `buffer_bytes` wait for the consumer; so
memory stays within that and what the running transfers bring. A transfer that hears nothing for a while gives its place
to another: hosts that never answer cost a descriptor each, and hardly any time.
"""

import contextlib
import ipaddress
import itertools
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator

from curation.fetch import outcomes
from curation.fetch.certificates import certificates
from curation.fetch.curl_loop import CurlLoop
from curation.fetch.host_policy import UNTIL_ANOTHER_ENDS, HostPolicy
from curation.fetch.job import Job, Line, Purpose
from curation.fetch.names import RESOLVED, Names
from curation.fetch.outcomes import RETRIED, Fetched, Request
from curation.fetch.policy import FetchPolicy
from curation.fetch.site_checks import SiteChecks
from curation.fetch.transfer import Answer, Transfer
from curation.fetch.urls import UrlError, parse_url, redirected
from schemas.errors import PairmillError, RunError

_WINDOW = 4  # requests waiting, running or done but not taken, per transfer that may run
_MOST_STALLED = 3  # transfers that hear nothing and run beside the others, per transfer that may run
_PATIENCE_S = 1.0  # libcurl waits for name look-ups that hang before it lets go of them
_RETRIES_UNHEARD = 1  # of a host that gave no answer at all
_DROPPED = "dropped"  # how a request ends that nobody waits for any more


def fetch(requests: Iterator[Request], policy: FetchPolicy, hosts: HostPolicy) -> Generator[Fetched, None, None]:
    """What comes of each request, in the order in which they end; exactly one result per request.

    Requests are drawn ahead of the results. When the iterator is closed, running transfers are dropped. Raises
    RunError where nothing can be fetched at all (no certificates on this machine, a resolver that does not work).
    """
    engine = _Engine(policy, hosts)
    engine.start()
    under_way, source = 0, iter(requests)
    try:
        while True:
            for request in itertools.islice(source, _WINDOW * policy.concurrency + engine.stalled - under_way):
                engine.submit(request)
                under_way += 1
            if not under_way:
                return
            yield engine.next_result()
            under_way -= 1
    finally:
        engine.close()


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
        self._line = Line()
        self._names: Names[Job] = Names(self._loop.ring)
        self._sites = SiteChecks(policy, hosts)
        self._running: dict[Transfer, Job] = {}
        self._unheard: deque[tuple[float, Transfer, Job]] = deque()  # by when they will have heard nothing for long
        self._stalled: set[Transfer] = set()
        self._idle: list[Transfer] = []
        self._named_hosts: set[str] = set()  # that were found in a network of allow_networks
        self._deadline = None if policy.deadline_s is None else time.monotonic() + policy.deadline_s
        self._over = False

    @property
    def stalled(self) -> int:
        """How many transfers run beside the others because they hear nothing."""
        return min(len(self._stalled), _MOST_STALLED * self._policy.concurrency)

    def submit(self, request: Request) -> None:
        """Take a request in."""
        self._inbox.append(request)
        self._loop.ring()

    def next_result(self) -> Fetched:
        """Wait for the next result."""
        result = self._outbox.get()
        if isinstance(result, PairmillError):
            raise result
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
            self._hosts.begin(self._loop.ring, self._line.waiting)
            while not self._stopping:
                self._turn()
            for job in self._running.values():
                self._release(job, _DROPPED)
        except BaseException as error:  # the consumer must not wait for ever
            self._outbox.put(error)
        with contextlib.suppress(Exception):  # what sites said is lost then, and asked again
            self._hosts.end()
        self._names.close()
        for transfer in self._idle:
            transfer.handle.close()
        self._loop.close()

    def _turn(self) -> None:
        """One round: take in what has come, start what may start, wait until something happens, and take that."""
        self._take_in()
        domains, sites = self._hosts.turn()
        for domain in domains:
            self._line.wake(domain)
        for site in sites:
            self._line.go_on(self._sites.into(site))
        self._line.look_at_clock()
        self._look_for_stalled()
        while self._line.ready and self._has_room:
            self._try(self._line.ready.popleft())
        for transfer, answer in self._loop.turn(self._next_moment):
            self._idle.append(transfer)
            self._stalled.discard(transfer)
            self._take_answer(self._running.pop(transfer), answer)
        for job, status, error in self._names.answers():
            self._take_name(job, status, error)
        if self._deadline is not None and not self._over and time.monotonic() >= self._deadline:
            self._end_all()

    @property
    def _next_moment(self) -> float | None:
        own = None if self._over else self._deadline
        stall = self._unheard[0][0] if self._unheard and self._line.ready else None
        moments = self._line.next_moment, own, stall, self._hosts.next_turn
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _has_room(self) -> bool:
        buffer_full = self._finished_bytes - self._taken_bytes > self._policy.buffer_bytes
        return len(self._running) - self.stalled < self._policy.concurrency and not buffer_full

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

    def _look_for_stalled(self) -> None:
        """Find the transfers that have heard nothing for a while."""
        now = time.monotonic()
        while self._unheard and self._unheard[0][0] <= now:
            _, transfer, job = self._unheard.popleft()
            if self._running.get(transfer) is job and not transfer.heard:
                self._stalled.add(transfer)

    def _try(self, job: Job) -> None:
        """Start a job if its site and its domain let it; else it waits there, in its turn."""
        blocked = self._policy.block_lists.host(job.target.host)
        if blocked:
            self._finish(job, Answer(outcomes.BLOCKED_DOMAIN, f"{blocked} is on the list of blocked domains"))
            return
        if self._sites.keeps(job):
            if job.its_turn:
                job.its_turn = False
                self._line.wake(job.domain)
            self._line.go_on(self._sites.into(job.target.site))
            return
        refusal = self._sites.refusal(job)
        down = self._hosts.refusal(job.target.host)
        if refusal or down:
            self._finish(job, refusal or job.last or Answer(outcomes.HOST_DOWN, down))
            self._line.wake(job.domain)
            return
        job.limited = not (job.target.host in self._named_hosts or self._guard.names(job.target.host))
        if job.limited and not job.its_turn and self._line.holds(job.domain):
            self._line.hold(job)
            return
        wait_s = self._hosts.admit(job.target.host, limited=job.limited)
        if wait_s > 0:
            self._line.hold(job, None if wait_s == UNTIL_ANOTHER_ENDS else wait_s)
            return
        job.admitted, job.its_turn = True, False
        self._start_job(job)
        self._line.wake(job.domain)

    def _start_job(self, job: Job) -> None:
        refusal = None if self._guard.allowed else self._guard.port_refusal(job.target.port)
        if refusal:  # no network is named, so the address need not be looked up
            self._release(job, refusal[0])
            self._finish(job, Answer(*refusal))
            return
        transfer = self._idle.pop() if self._idle else Transfer(self._policy, self._guard, self._ca_file)
        left_s = self._policy.timeout_s - job.attempt_s
        transfer.aim(job.target, left_s, site_file=job.purpose is not Purpose.PICTURE)
        job.started = time.monotonic()
        job.attempts += job.redirects == 0
        self._running[transfer] = job
        self._unheard.append((job.started + self._policy.stalled_s, transfer, job))
        self._loop.start(transfer)

    def _take_answer(self, job: Job, answer: Answer) -> None:
        spent_s = time.monotonic() - job.started
        job.attempt_s += spent_s
        job.total_s += spent_s
        if answer.named_network:
            self._named_hosts.add(job.target.host)
        asked_s = answer.retry_after_s or 0.0
        self._release(job, answer.status, answer.http_status, asked_s)
        if answer.status == outcomes.DNS and not answer.timed_out:
            job.last = answer
            self._names.ask(job.target.host, job)
        else:
            self._note_name(job.target.host, answer.status)
            self._go_on(job, answer, asked_s)

    def _take_name(self, job: Job, status: str, error: str) -> None:
        """The resolver was asked why it had no answer; perhaps it has one now."""
        if not self._over:
            self._names.note(job.target.host, status)
            if status == RESOLVED:
                self._go_on(job, job.last or Answer(outcomes.DNS, error))
            else:
                self._go_on(job, Answer(status, f"the host's name could not be resolved: {error}"))

    def _go_on(self, job: Job, answer: Answer, asked_s: float = 0.0) -> None:
        """Follow where the answer leads, try again, or finish."""
        heard = answer.http_status is not None or answer.status == outcomes.DNS
        retries = self._policy.retries if heard or not answer.timed_out else min(self._policy.retries, _RETRIES_UNHEARD)
        patient = job.attempts <= retries and asked_s <= self._policy.most_retry_after_s
        if answer.location is not None:
            self._follow(job, answer)
        elif answer.status in RETRIED and patient:
            self._retry(job, answer, asked_s)
        else:
            self._finish(job, answer)

    def _retry(self, job: Job, answer: Answer, asked_s: float) -> None:
        pause_s = self._policy.backoff_s * 2 ** (job.attempts - 1) * random.uniform(0.5, 1.0)
        job.target = parse_url(job.request.url)
        job.redirects, job.attempt_s, job.last = 0, 0.0, answer
        self._line.put_off(job, max(pause_s, asked_s))

    def _follow(self, job: Job, answer: Answer) -> None:
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
            self._line.ready.appendleft(job)

    def _release(self, job: Job, status: str, http_status: int | None = None, asked_s: float = 0.0) -> None:
        if job.admitted:
            job.admitted = False
            self._hosts.done(job.target.host, status, http_status, asked_s)
            self._line.wake(job.domain)

    def _note_name(self, host: str, status: str) -> None:
        if not _is_literal(host):
            self._names.note(host, outcomes.DNS if status == outcomes.DNS else RESOLVED)

    def _end_all(self) -> None:
        """The time is over: what waits and what runs fails, and so does all that comes."""
        self._over = True
        for transfer, job in self._running.items():
            self._loop.drop(transfer)
            self._idle.append(transfer)
            self._release(job, _DROPPED)
            self._finish(job, self._too_late)
        self._running.clear()
        self._stalled.clear()
        self._unheard.clear()
        for job in [*self._line.drain(), *self._names.waiting, *self._sites.drain()]:
            self._finish(job, self._too_late)

    @property
    def _too_late(self) -> Answer:
        return Answer(outcomes.DEADLINE, f"not done in the {self._policy.deadline_s:g} s that its part had")

    def _finish(self, job: Job, answer: Answer) -> None:
        if job.purpose is not Purpose.PICTURE:
            if not self._over:
                self._line.go_on(self._sites.finished(job, answer))
            return
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
            time.time(),
        )
        self._outbox.put(result)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
