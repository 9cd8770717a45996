"""What hosts cost that never answer: 2 % of the URLs lead to them, each to another one, against a web without such.

    python benchmarks/dead_hosts.py [SECONDS]

The dead hosts take the connection and stay silent, which is worse than refusing it; and since each is met once, no
circuit breaker helps. The consumer spends 2.5 ms on each result, as decoding does. Goal: 90 % of the rate.
"""

import itertools
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator

from local_web import LocalWeb, local_web

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import Request
from curation.fetch.policy import FetchPolicy

_POLICY = FetchPolicy(concurrency=64, allow_networks=("127.0.0.0/8",))
_WORK_S = 0.0025
_GOAL = 0.9


def main() -> None:
    """Measure both and print the ratio."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with local_web(median_bytes=10_000) as web, socket.create_server(("0.0.0.0", 0), backlog=4096) as silent:
        rates = {}
        for name, every in {"all hosts answer": 0, "2 % never do": 50}.items():
            told = _run(web, silent.getsockname()[1], every, seconds)
            rates[name] = told.total() / seconds
            print(f"{name:18} {rates[name]:6.1f} URLs/s over {seconds:g} s; {dict(told)}")
        ratio = rates["2 % never do"] / rates["all hosts answer"]
        print(f"{ratio:.1%} of the rate (goal {_GOAL:.0%})")
        sys.exit(ratio < _GOAL)


def _run(web: LocalWeb, silent_port: int, every: int, seconds: float) -> Counter[str]:
    told: Counter[str] = Counter()
    requests = (Request(i, url) for i, url in enumerate(_urls(web, silent_port, every)))
    began = time.monotonic()
    for result in fetch(requests, _POLICY, HostPolicy()):
        told[result.status] += 1
        worked = time.perf_counter()
        while time.perf_counter() - worked < _WORK_S:
            pass
        if time.monotonic() - began > seconds:
            return told
    return told


def _urls(web: LocalWeb, silent_port: int, every: int) -> Iterator[str]:
    urls = itertools.cycle(web.urls(10_000))
    for number in itertools.count():
        if every and number % every == 0:
            host = number // every
            yield f"http://127.9.{host // 250 % 250}.{host % 250 + 1}:{silent_port}/x.jpg"
        else:
            yield next(urls)


if __name__ == "__main__":
    main()
