"""How URLs are fetched: the limits of one fetch."""

from dataclasses import dataclass, field, fields

from curation.fetch.block_lists import BlockLists
from curation.fetch.http.addresses import WEB_PORTS, AddressGuard, parse_networks

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
    stalled_s: float = 1.0  # a transfer that has heard nothing for so long gives its place to another
    part_deadline_s: float | None = None  # for all requests of one fetch together
    buffer_bytes: int = 256 * 2**20  # no transfer is started while so much waits for the consumer
    user_agent: str = USER_AGENT
    robots: bool = True  # heed robots.txt
    opt_out: bool = True  # heed X-Robots-Tag, tdm-reservation and tdmrep.json
    allow_networks: tuple[str, ...] = ()
    ports: tuple[int, ...] = WEB_PORTS
    block_lists: BlockLists = field(default_factory=BlockLists)

    @classmethod
    def of(cls, settings: object, block_lists: BlockLists) -> "FetchPolicy":
        """The limits that stand under these names in an operator's settings; the others are as they are here."""
        named = {one.name: getattr(settings, one.name) for one in fields(cls) if hasattr(settings, one.name)}
        return cls(**named, block_lists=block_lists)

    @property
    def guard(self) -> AddressGuard:
        """What says which addresses may be connected to."""
        return AddressGuard(parse_networks(self.allow_networks), self.ports)
