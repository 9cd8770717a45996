"""The host policy of a run with many workers: deals each domain's places out, and passes on what workers learn.

A worker reports in bulk, ten times a second at most: the domains where something has changed, and the sites whose
answers it lacks. It is told its places, and starts requests within them without asking. So a limit holds for the
whole run at the price of one call per worker and tenth of a second, not one per request.

Whoever reports is this object's only way to know: workers that fall silent lose their places after a while, and one
that is unknown here (this object was started anew) is told so and reports all that it has.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from curation.fetch.hosts.host_policy import Domain, HostLimits
from curation.fetch.hosts.site_book import WAIT, Found, SiteAnswers, SiteBook, Wanted

_SILENT_S = 30.0  # after which a worker counts as dead
_TURN_S = 5.0  # how long workers keep places that others wait for
_CALLS_PER_S = 300  # that one such object bears; with more workers, each reports more seldom
_LEAST_PAUSE_S = 0.1


class Interest(NamedTuple):
    """What a worker says about a domain, since it last spoke of it."""

    wanted: int  # places it could use: requests that run and that wait
    running: int
    failures: int = 0  # without an answer, since the last answer
    heard: bool = False
    asked_s: float | None = None  # the pause that the domain asked for; 0 for one without a length


class Report(NamedTuple):
    """What a worker has to say."""

    worker: str
    number: int  # of its reports, from 0
    domains: dict[str, Interest]
    sites: dict[str, Wanted]  # whose answers it waits for
    found: dict[str, SiteAnswers | None]  # what it was told to fetch
    ends: bool = False


class Grant(NamedTuple):
    """What a worker is told about a domain."""

    places: int
    quiet_s: float = 0.0
    down_s: float = 0.0
    reason: str = ""


class Reply(NamedTuple):
    """What a worker is told."""

    domains: dict[str, Grant]
    sites: dict[str, Found]
    pause_s: float  # before it is to report again
    unknown: bool = False  # it is to report everything


@dataclass
class _Stake:
    """What a worker has in a domain."""

    wanted: int = 0
    running: int = 0
    places: int = 0
    places_before: int = 0  # until its next report it may not have heard that it has fewer

    @property
    def committed(self) -> int:
        """How many requests it may have under way."""
        return max(self.places, self.places_before, self.running)


@dataclass
class _Shared:
    health: Domain = field(default_factory=Domain)
    stakes: dict[str, _Stake] = field(default_factory=dict)


class RunHosts:
    """Plain and without threads; on Ray an actor holds one."""

    def __init__(self, limits: HostLimits, sites: SiteBook, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._sites, self._clock = limits, sites, clock
        self._domains: dict[str, _Shared] = {}
        self._contested: set[str] = set()
        self._workers: dict[str, float] = {}  # when they reported last
        self._swept = clock()

    def exchange(self, report: Report) -> Reply:
        """Take a report in; say what has changed for that worker."""
        self._sweep()
        if report.number and report.worker not in self._workers and not report.ends:
            self._workers[report.worker] = self._clock()
            return Reply({}, {}, 0.0, unknown=True)
        self._workers[report.worker] = self._clock()
        for site, found in report.found.items():
            self._sites.tell(site, found)
        for name, interest in report.domains.items():
            self._note(report.worker, name, interest)
        if report.ends:
            self._forget(report.worker)
            self._sites.write()
            return Reply({}, {}, 0.0)
        grants = {name: self._deal(report.worker, name) for name, interest in report.domains.items() if interest.wanted}
        for name in self._contested - report.domains.keys():
            if report.worker in self._domains[name].stakes:
                grants[name] = self._deal(report.worker, name)
        asked = {site: self._sites.ask(site, wanted, report.worker) for site, wanted in report.sites.items()}
        sites: dict[str, Found] = {site: found for site, found in asked.items() if found != WAIT}
        return Reply(grants, sites, max(_LEAST_PAUSE_S, len(self._workers) / _CALLS_PER_S))

    def _note(self, worker: str, name: str, interest: Interest) -> None:
        shared = self._domains.setdefault(name, _Shared())
        now, health = self._clock(), shared.health
        if interest.heard:
            health.answered()
        if interest.asked_s is not None:
            health.slow_down(self._limits, now, interest.asked_s)
        elif interest.heard:
            health.slow_downs = 0
        for _ in range(interest.failures):
            health.probing = health.down_s > 0 and now >= health.down_until
            health.failed(self._limits, now)
        if interest.wanted:
            stake = shared.stakes.setdefault(worker, _Stake())
            stake.wanted, stake.running = interest.wanted, interest.running
        else:
            shared.stakes.pop(worker, None)
        self._look_at(name, shared)

    def _look_at(self, name: str, shared: _Shared) -> None:
        if sum(stake.wanted for stake in shared.stakes.values()) > self._limits.places and len(shared.stakes) > 1:
            self._contested.add(name)
        else:
            self._contested.discard(name)
        if not shared.stakes and shared.health.idle:
            del self._domains[name]

    def _deal(self, worker: str, name: str) -> Grant:
        shared = self._domains[name]
        stake, health, now = shared.stakes[worker], shared.health, self._clock()
        others = sum(other.committed for who, other in shared.stakes.items() if who != worker)
        share = self._shares(shared)[worker] if name in self._contested else stake.wanted
        stake.places_before = stake.places
        stake.places = max(0, min(share, self._limits.places - others))
        return Grant(stake.places, max(0.0, health.quiet_until - now), max(0.0, health.down_until - now), health.reason)

    def _shares(self, shared: _Shared) -> dict[str, int]:
        """Places dealt one by one to those who want more; who comes first changes every few seconds."""
        workers = sorted(shared.stakes)
        first = int(self._clock() / _TURN_S) % len(workers)
        workers = workers[first:] + workers[:first]
        shares, left = dict.fromkeys(workers, 0), self._limits.places
        while left and (hungry := [who for who in workers if shares[who] < shared.stakes[who].wanted]):
            for who in hungry[:left]:
                shares[who] += 1
            left -= min(left, len(hungry))
        return shares

    def _sweep(self) -> None:
        """Forget workers that have fallen silent."""
        now = self._clock()
        if now - self._swept > _SILENT_S / 4:
            self._swept = now
            for worker in [who for who, seen in self._workers.items() if now - seen > _SILENT_S]:
                self._forget(worker)

    def _forget(self, worker: str) -> None:
        del self._workers[worker]
        for name, shared in list(self._domains.items()):
            if shared.stakes.pop(worker, None):
                self._look_at(name, shared)
