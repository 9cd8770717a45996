"""How URLs are fetched: limits for one fetch, and the state per host that all fetches of a process share."""

import time
from dataclasses import dataclass, field

from curation.fetch.addresses import AddressGuard, parse_networks
from curation.fetch.outcomes import HTTP_429

USER_AGENT = "Pairmill/0.1 (collects image-caption pairs; set user_agent to name a contact)"


@dataclass(frozen=True)
class FetchPolicy:
    """The limits of a fetch. Only `max_bytes` decides what a body may be; the rest decides how patient we are."""

    max_bytes: int = 20 * 2**20
    timeout_s: float = 20.0  # of one attempt, redirects included
    connect_s: float = 5.0
    slow_bytes_per_s: int = 1000  # slower than that for `slow_s` seconds is given up
    slow_s: int = 10
    retries: int = 2
    backoff_s: float = 0.5  # before the first retry; doubles, and a random half of it is left out
    most_retry_after_s: float = 30.0  # a server that asks for more is not tried again in this run
    most_redirects: int = 5
    concurrency: int = 64
    buffer_bytes: int = 256 * 2**20  # no transfer is started while so much waits for the consumer
    user_agent: str = USER_AGENT
    allow_networks: tuple[str, ...] = ()

    @property
    def guard(self) -> AddressGuard:
        """What says which addresses may be connected to."""
        return AddressGuard(parse_networks(self.allow_networks))


@dataclass
class HostPolicy:
    """How many requests a host gets at once, and when it wants to be left alone. The place for robots and rates.

    One object per process, handed to every fetch; its methods are quick and called from one thread at a time.
    """

    per_host: int = 8
    _running: dict[str, int] = field(default_factory=dict)
    _quiet_until: dict[str, float] = field(default_factory=dict)

    def admit(self, host: str) -> float:
        """0 and a place taken, or how many seconds to wait; infinity: until a request to that host has ended."""
        quiet_s = self._quiet_until.get(host, 0.0) - time.monotonic()
        if quiet_s > 0:
            return quiet_s
        self._quiet_until.pop(host, None)
        running = self._running.get(host, 0)
        if running >= self.per_host:
            return float("inf")
        self._running[host] = running + 1
        return 0.0

    def done(self, host: str, status: str, wait_s: float | None = None) -> None:
        """A request to the host has ended; `wait_s` is the pause it asked for, already bounded."""
        left = self._running.get(host, 0) - 1
        if left > 0:
            self._running[host] = left
        else:
            self._running.pop(host, None)
        if status == HTTP_429 and wait_s:
            self._quiet_until[host] = time.monotonic() + wait_s
