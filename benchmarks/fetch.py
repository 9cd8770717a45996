"""What fetching alone costs: CPU per URL of the engine, and of libcurl's multi interface with nothing around it.

    python benchmarks/fetch.py [URLS]

No picture is decoded. The client is one process, pinned to one core where there are two; CPU is that process's.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pycurl
from local_web import LocalWeb, local_web

from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import Request
from curation.fetch.policy import FetchPolicy

_CONCURRENCY = 64
_POLICY = FetchPolicy(retries=0, concurrency=_CONCURRENCY, robots=False, opt_out=False, allow_networks=("127.0.0.0/8",))


def main() -> None:
    """Measure in turns and print the best of three."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    cores = sorted(os.sched_getaffinity(0))
    with local_web() as web:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[1:2])
        ways: dict[str, Callable[[LocalWeb, int], Counter[str]]] = {
            "libcurl multi alone": _bare,
            "the engine": _engine,
            "the engine, robots.txt and opt-outs heeded": _engine_with_manners,
        }
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for name in [*ways] * 3:
            cpu, wall = time.process_time(), time.perf_counter()
            told = ways[name](web, count)
            figures[name].append(((time.process_time() - cpu) / count * 1000, count / (time.perf_counter() - wall)))
            assert told.total() == count, told
        print(f"{count:,} URLs of {web.server}, a tenth of them 404; {pycurl.version.split()[1]}")
        for name, measured in figures.items():
            cpu_ms, rate = min(measured)
            print(f"{name:44} {cpu_ms:.3f} ms of CPU a URL, {rate:,.0f} URLs/s")


def _engine(web: LocalWeb, count: int, policy: FetchPolicy = _POLICY) -> Counter[str]:
    requests = (Request(i, url) for i, url in enumerate(web.urls(count)))
    return Counter(result.status for result in fetch(requests, policy, HostPolicy(HostLimits())))


def _engine_with_manners(web: LocalWeb, count: int) -> Counter[str]:
    return _engine(web, count, FetchPolicy(**{**vars(_POLICY), "robots": True, "opt_out": True}))


def _bare(web: LocalWeb, count: int) -> Counter[str]:
    """No checks, no callbacks in Python but for the body's pieces, joined once."""
    told: Counter[str] = Counter()
    urls: Iterator[str] = iter(web.urls(count))
    multi = pycurl.CurlMulti()
    bodies: dict[pycurl.Curl, list[bytes]] = {}

    def begin(handle: pycurl.Curl) -> None:
        url = next(urls, None)
        if url is not None:
            bodies[handle] = pieces = []
            handle.setopt(pycurl.URL, url)
            handle.setopt(pycurl.WRITEFUNCTION, pieces.append)
            multi.add_handle(handle)

    for _ in range(_CONCURRENCY):
        handle = pycurl.Curl()
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        begin(handle)
    while bodies:
        multi.perform()
        multi.select(1.0)
        _, done, _ = multi.info_read()
        for handle in done:
            multi.remove_handle(handle)
            body = b"".join(bodies.pop(handle))
            told["ok" if body else "empty"] += 1
            begin(handle)
    return told


if __name__ == "__main__":
    main()
