"""Does fetching leak? 100,000 fetches, good and bad, from a local web; what the process holds every 10,000 of them.

    python benchmarks/soak.py [FETCHES]

Flat lines are the goal: memory within 64 MB of what it was after the first 10,000, and nothing else that grows. Of 100
URLs, 80 are pictures, 10 are gone, and 10 lead to a port that is closed or to a host that never answers.
"""

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
from local_web import LocalWeb, local_web

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import Request
from curation.fetch.policy import FetchPolicy

_POLICY = FetchPolicy(timeout_s=5, connect_s=1, slow_s=2, retries=1, backoff_s=0.1, allow_networks=("127.0.0.0/8",))
_PART = 10_000
_MOST_GROWTH_MB = 64


def main() -> None:
    """Fetch in parts, as a run does, each part with an engine of its own and all with one host policy."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    hosts = HostPolicy()
    with local_web(median_bytes=10_000) as web, socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        first = None
        print(f"{'fetches':>9} {'RSS MB':>7} {'open':>5} {'threads':>7} {'children':>8} {'URLs/s':>7}  outcomes")
        for start in range(0, count, _PART):
            began = time.perf_counter()
            part = list(enumerate(_urls(web, silent.getsockname()[1], start)))
            told = Counter(one.status for one in fetch((Request(*pair) for pair in part), _POLICY, hosts))
            process = psutil.Process()
            rss_mb = process.memory_info().rss / 2**20
            first = first or rss_mb
            held = [len(os.listdir("/proc/self/fd")), threading.active_count(), len(process.children()) - 1]
            rate = _PART / (time.perf_counter() - began)
            print(f"{start + _PART:9,} {rss_mb:7.1f} {held[0]:5} {held[1]:7} {held[2]:8} {rate:7.0f}  {dict(told)}")
        grown = rss_mb - first
        print(f"grown by {grown:.1f} MB since the first {_PART:,} (goal < {_MOST_GROWTH_MB})")
        sys.exit(grown >= _MOST_GROWTH_MB)


def _urls(web: LocalWeb, silent_port: int, start: int) -> Iterator[str]:
    for i, url in enumerate(web.urls(_PART)):
        number = start + i
        if number % 100 < 5:
            yield f"http://127.0.2.{number // 100 % 250 + 1}:9/{number}.jpg"
        elif number % 100 < 10:
            yield f"http://127.0.0.1:{silent_port}/{number}.jpg"
        else:
            yield url


if __name__ == "__main__":
    main()
