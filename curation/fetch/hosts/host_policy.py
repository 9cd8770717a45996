"""How we treat hosts: per registered domain, so many requests at once and a second, pauses, and a circuit breaker.

One object serves all fetches of a process, and there it is all there is. Where a run has many workers, each has such
an object with its share of every domain's limits (leased_hosts.py), and one object deals the shares out (run_hosts.py).
"""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from curation.fetch import outcomes
from curation.fetch.hosts.domains import registered_domain
from curation.fetch.hosts.site_book import Found, SiteAnswers, SiteBook, Wanted

UNTIL_ANOTHER_ENDS = float("inf")
_ASK_TO_WAIT = (429, 503)
_BUSY_PAGES = 2
_NO_ANSWER = (outcomes.CONNECT, outcomes.TIMEOUT, outcomes.TOO_SLOW)
_MOST_DOMAINS = 100_000  # remembered; of the others nothing is worth remembering


@dataclass(frozen=True)
class HostLimits:
    """What one registered domain gets from us."""

    places: int = 8  # requests at once
    per_s: float | None = None  # requests that begin in a second; None: no limit
    failures: int = 5  # without an answer, one after the other, after which the domain counts as down
    heard_factor: int = 4  # a domain that has answered before is allowed so many times as many
    down_s: float = 30.0  # until one request probes whether it is up again; doubles with every probe that fails
    most_down_s: float = 600.0
    most_pause_s: float = 30.0  # who asks for a longer one is left alone, as if it were down


@dataclass
class Domain:
    """What is known of a registered domain."""

    places: int = 0
    running: int = 0
    next_start: float = 0.0  # by the rate
    quiet_until: float = 0.0
    slow_downs: int = 0  # 429 and 503 in a row
    failures: int = 0  # without an answer, in a row
    heard: bool = False
    down_until: float = 0.0
    down_s: float = 0.0  # the last time it was down; 0: it is up
    reason: str = ""
    probing: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not (self.running or self.failures or self.down_s or self.slow_downs)

    def answered(self) -> None:
        """It has answered, in whatever way."""
        if self.down_s:
            self.down_until = 0.0
        self.heard, self.failures, self.probing, self.down_s = True, 0, False, 0.0

    def failed(self, limits: HostLimits, now: float) -> None:
        """It gave no answer."""
        self.failures += 1
        patience = limits.failures * (limits.heard_factor if self.heard else 1)
        if self.probing or (self.failures >= patience and not self.down_s):
            self.down_s = min(self.down_s * 2 or limits.down_s, limits.most_down_s)
            self.down_until = now + self.down_s
            self.reason = f"gave no answer {self.failures} times in a row"
            self.probing = False

    def slow_down(self, limits: HostLimits, now: float, asked_s: float, http_status: int = 429) -> None:
        """It wants to be left alone, for as long as it asks for; where it names no time, a second, two, four …

        A 503 without a time may be that page's own trouble, so it counts from the third in a row on.
        """
        if asked_s > limits.most_pause_s:
            self.down_until = now + min(asked_s, limits.most_down_s)
            self.reason = f"asked for a pause of {asked_s:.0f} s"
            return
        own_s = min(2.0**self.slow_downs * random.uniform(0.5, 1.0), limits.most_pause_s)
        self.slow_downs += 1
        if asked_s or http_status == 429 or self.slow_downs > _BUSY_PAGES:
            self.quiet_until = max(self.quiet_until, now + (asked_s or own_s))


@dataclass
class HostPolicy:
    """Says when a request to a host may start. Its methods are quick and called from one thread at a time."""

    limits: HostLimits = field(default_factory=HostLimits)
    clock: Callable[[], float] = time.monotonic
    domains: dict[str, Domain] = field(default_factory=dict)
    sites: SiteBook = field(default_factory=SiteBook)

    def begin(self, ring: Callable[[], None], waiting: Callable[[str], int]) -> None:
        """A fetch begins: `ring` wakes its thread, `waiting` says how many of its requests wait for a domain."""

    def turn(self) -> tuple[Iterable[str], Iterable[str]]:
        """To be called often: the domains and the sites that have news since the last time."""
        return (), ()

    @property
    def next_turn(self) -> float | None:
        """When `turn` must be called at the latest, by the monotonic clock."""
        return None

    def end(self) -> None:
        """The fetch has ended."""
        self.sites.write()

    def ask_site(self, site: str, wanted: Wanted) -> Found:
        """What a site said about robots and reserved rights, or who is to ask it."""
        return self.sites.ask(site, wanted)

    def tell_site(self, site: str, answers: SiteAnswers | None) -> None:
        """What a site said; None where it could not be asked."""
        self.sites.tell(site, answers)

    def refusal(self, host: str) -> str:
        """Why the host is not asked at all for now, as a sentence; empty where it may be."""
        domain = self.domains.get(registered_domain(host))
        if domain is None or self.clock() >= domain.down_until:
            return ""
        left_s = domain.down_until - self.clock()
        return f"{registered_domain(host)} {domain.reason}; it is left alone for {left_s:.0f} s"

    def admit(self, host: str, *, limited: bool = True) -> float:
        """0 and a place taken, or how many seconds to wait; infinity: until a request to that domain has ended.

        `limited` is False for networks of the user's own, which only the breaker guards.
        """
        domain = self._domain(host)
        if limited and domain.running >= domain.places:
            return UNTIL_ANOTHER_ENDS
        if domain.down_s:
            if domain.probing:
                return UNTIL_ANOTHER_ENDS
            domain.probing = True
        elif limited and (wait_s := self._wait_s(domain)) > 0:
            return wait_s
        domain.running += 1
        return 0.0

    def done(self, host: str, status: str, http_status: int | None = None, asked_s: float = 0.0) -> None:
        """A request to the host has ended; `asked_s` is the pause that it asked for, 0 for none."""
        domain = self._domain(host)
        domain.running -= 1
        if http_status is not None:
            domain.answered()
            if http_status in _ASK_TO_WAIT:
                domain.slow_down(self.limits, self.clock(), asked_s, http_status)
            else:
                domain.slow_downs = 0
        elif status in _NO_ANSWER:
            domain.failed(self.limits, self.clock())
        domain.probing = False
        if domain.idle and len(self.domains) > _MOST_DOMAINS:
            del self.domains[registered_domain(host)]

    def is_alive(self, host: str) -> bool:
        """Whether the host's domain has answered before and does not count as down: who waits for it waits in line."""
        domain = self.domains.get(registered_domain(host))
        return domain is not None and domain.heard and not domain.down_s

    def _domain(self, host: str) -> Domain:
        name = registered_domain(host)
        domain = self.domains.get(name)
        if domain is None:
            domain = self.domains[name] = Domain(self._first_places)
        return domain

    @property
    def _first_places(self) -> int:
        return self.limits.places

    def _wait_s(self, domain: Domain) -> float:
        now = self.clock()
        wait_s = max(domain.quiet_until, domain.next_start) - now
        if wait_s <= 0 and self.limits.per_s:
            pause_s = self.limits.places / (self.limits.per_s * domain.places)  # a share of the places, of the rate
            domain.next_start = max(now - pause_s, domain.next_start) + pause_s
        return wait_s
