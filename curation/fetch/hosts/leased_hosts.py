"""A worker's share of its run's host policy: places lent by `RunHosts`, asked for in bulk by a thread of its own."""

import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from curation.fetch.hosts.domains import registered_domain
from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.hosts.run_hosts import Interest, Reply, Report
from curation.fetch.hosts.site_book import WAIT, Found, SiteAnswers, SiteBook, Wanted
from curation.storage.store import Store
from schemas.errors import PairmillError, RunError

_HEARTBEAT_S = 5.0  # with nothing to say


def open_hosts(limits: HostLimits, store: Store | None, exchange: Callable[..., Reply] | None) -> HostPolicy:
    """All there is, for a worker alone; a share of what `exchange(store, limits, report)` reaches, for one of many."""
    if exchange is None:
        return HostPolicy(limits, sites=SiteBook(store))
    return LeasedHosts(limits, exchange=partial(exchange, store, limits))


@dataclass
class _News:
    """What happened at a domain since the last report."""

    failures: int = 0
    heard: bool = False
    asked_s: float | None = None


@dataclass
class LeasedHosts(HostPolicy):
    """Like the plain host policy, but a domain has no places until the run's object lends some."""

    exchange: Callable[[Report], Reply] | None = None
    _worker: str = ""
    _number: int = 0
    _ring: Callable[[], None] = print
    _waiting: Callable[[str], int] = len
    _changed: dict[str, _News] = field(default_factory=dict)
    _sites_wanted: dict[str, Wanted] = field(default_factory=dict)
    _sites_found: dict[str, SiteAnswers | None] = field(default_factory=dict)
    _sites_known: dict[str, Found] = field(default_factory=dict)  # told, and not yet taken
    _reports: "queue.SimpleQueue[Report | None]" = field(default_factory=queue.SimpleQueue)
    _replies: "deque[Reply | BaseException]" = field(default_factory=deque)
    _in_flight: bool = False
    _due: float = 0.0
    _last: float = 0.0

    @property
    def _first_places(self) -> int:
        return 0

    def begin(self, ring: Callable[[], None], waiting: Callable[[str], int]) -> None:
        """A fetch begins: a worker of its own for the run's object."""
        self._worker, self._number, self._ring, self._waiting = uuid.uuid4().hex, 0, ring, waiting
        threading.Thread(target=self._talk, args=(self._reports,), name="hosts", daemon=True).start()

    def admit(self, host: str, *, limited: bool = True) -> float:
        """As the plain one, within the places that were lent."""
        if limited:
            self._changed.setdefault(registered_domain(host), _News())
        return super().admit(host, limited=limited)

    def done(self, host: str, status: str, http_status: int | None = None, asked_s: float = 0.0) -> None:
        """As the plain one; the run's object is told."""
        name = registered_domain(host)
        domain = self._domain(host)
        before, quiet_until = domain.failures, domain.quiet_until
        super().done(host, status, http_status, asked_s)
        news = self._changed.setdefault(name, _News())
        if http_status is not None:
            news.heard, news.failures = True, 0
            if asked_s > self.limits.most_pause_s or domain.quiet_until > quiet_until:
                news.asked_s = asked_s
        elif domain.failures > before:
            news.failures += 1

    def ask_site(self, site: str, wanted: Wanted) -> Found:
        """What was told of a site; else it is asked for, and `turn` says when it is there."""
        if site in self._sites_known:
            return self._sites_known.pop(site)
        self._sites_wanted[site] = wanted
        return WAIT

    def tell_site(self, site: str, answers: SiteAnswers | None) -> None:
        """What this worker was told to fetch."""
        self._sites_found[site] = answers

    def turn(self) -> tuple[Iterable[str], Iterable[str]]:
        """Take in a reply, send a report if it is time; raises RunError where the run's object cannot be reached."""
        domains: list[str] = []
        sites: list[str] = []
        while self._replies:
            reply = self._replies.popleft()
            self._in_flight = False
            if isinstance(reply, PairmillError):
                raise reply
            if isinstance(reply, BaseException):
                raise RunError(f"the host policy of the run cannot be reached: {reply}") from reply
            domains += self._take(reply)
            sites += reply.sites
        if not self._in_flight and time.monotonic() >= (self.next_turn or 0.0):
            self._in_flight, self._last = True, time.monotonic()
            self._reports.put(self._report())
        return domains, sites

    @property
    def next_turn(self) -> float | None:
        """When the next report is due; none while one is on its way."""
        if self._in_flight:
            return None
        return self._due if self._changed or self._sites_wanted or self._sites_found else self._last + _HEARTBEAT_S

    def end(self) -> None:
        """Give everything back."""
        assert self.exchange is not None
        self._reports.put(None)
        self._reports = queue.SimpleQueue()
        last = self._report()
        self.exchange(
            last._replace(domains={name: one._replace(wanted=0) for name, one in last.domains.items()}, ends=True)
        )
        self.domains.clear()

    def _report(self) -> Report:
        changed, self._changed = self._changed, {}
        interests = {}
        for name, news in changed.items():
            domain, waiting = self.domains[name], self._waiting(name)
            interests[name] = Interest(
                waiting + domain.running, domain.running, news.failures, news.heard, news.asked_s
            )
            if not waiting and not domain.running:
                domain.places = 0
            elif waiting:
                self._changed[name] = _News()  # until nobody waits
        found, self._sites_found = self._sites_found, {}
        report = Report(self._worker, self._number, interests, dict(self._sites_wanted), found)
        self._number += 1
        return report

    def _take(self, reply: Reply) -> Iterable[str]:
        """Take in what was granted; the domains that may go on."""
        now = self.clock()
        self._due = time.monotonic() + reply.pause_s
        if reply.unknown:
            for name, domain in self.domains.items():
                domain.places = 0
                self._changed.setdefault(name, _News())
        for name, grant in reply.domains.items():
            domain = self.domains[name]
            domain.places = grant.places
            domain.quiet_until = max(domain.quiet_until, now + grant.quiet_s if grant.quiet_s else 0.0)
            if grant.down_s and now >= domain.down_until:
                domain.down_until, domain.reason = now + grant.down_s, grant.reason
            yield from [name] * max(0, grant.places - domain.running) if not grant.down_s else [name]
        for site, found in reply.sites.items():
            del self._sites_wanted[site]
            self._sites_known[site] = found

    def _talk(self, reports: "queue.SimpleQueue[Report | None]") -> None:
        assert self.exchange is not None
        while (report := reports.get()) is not None:
            try:
                self._replies.append(self.exchange(report))
            except BaseException as error:  # the fetching thread raises it
                self._replies.append(error)
            self._ring()
