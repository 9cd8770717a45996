"""Rows that want the picture of a URL: those that stand together with one URL share one fetch."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.outcomes import BAD_URL, Fetched, Request
from curation.fetch.policy import FetchPolicy


@dataclass(frozen=True)
class Wanted:
    """A row that wants the bytes of its URL."""

    row: int
    key: str
    url: str | None


def fetch_once_per_url(
    wanted: Iterable[Wanted], policy: FetchPolicy, hosts: HostPolicy, patience_s: float | None = None
) -> Generator[tuple[list[Wanted], Fetched] | None, None, None]:
    """Each run of rows with one URL and what came of it, in the order in which fetches end.

    With `patience_s`, a None says that nothing ended for so long.
    """
    from curation.fetch.http.engine import fetch

    waiting: dict[int, list[Wanted]] = {}
    without_url: deque[list[Wanted]] = deque()

    def requests() -> Iterator[Request]:
        for number, (url, rows) in enumerate(itertools.groupby(wanted, key=lambda one: one.url)):
            if url and url.strip():
                waiting[number] = list(rows)
                yield Request(number, url)
            else:
                without_url.append(list(rows))

    with closing(fetch(requests(), policy, hosts, patience_s)) as results:
        for fetched in results:
            yield (waiting.pop(fetched.row), fetched) if fetched is not None else None
            while without_url:
                yield without_url.popleft(), NO_URL
    for rows in without_url:
        yield rows, NO_URL


NO_URL = Fetched(-1, BAD_URL, "the row has no URL")
