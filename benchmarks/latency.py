"""What a slow web costs: the rate of fetches whose answers take 50 to 200 ms, against answers that come at once.

    python benchmarks/latency.py [SECONDS]

The consumer spends 4 ms on each result, as decoding does; 64 requests may run at once. Goal: 90 % of the rate.
"""

import asyncio
import itertools
import multiprocessing
import random
import socket
import sys
import time
from collections import Counter

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import Request
from curation.fetch.policy import FetchPolicy

_POLICY = FetchPolicy(concurrency=64, allow_networks=("127.0.0.0/8",), robots=False, opt_out=False)
_WORK_S = 0.004
_BODY = random.Random(0).randbytes(40_000)
_GOAL = 0.9


def main() -> None:
    """Measure both and print the ratio."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    rates = {}
    for name, delays_s in {"answers at once": (0.0, 0.0), "after 50 to 200 ms": (0.05, 0.2)}.items():
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
            server = multiprocessing.Process(target=_serve, args=(listening, delays_s), daemon=True)
            server.start()
            told = _run(listening.getsockname()[1], seconds)
            server.kill()
        rates[name] = told.total() / seconds
        print(f"{name:20} {rates[name]:6.1f} URLs/s over {seconds:g} s; {dict(told)}", flush=True)
    at_once, late = rates.values()
    print(f"{late / at_once:.1%} of the rate (goal {_GOAL:.0%})")
    sys.exit(late / at_once < _GOAL)


def _run(port: int, seconds: float) -> Counter[str]:
    told: Counter[str] = Counter()
    requests = (Request(i, f"http://127.0.0.1:{port}/{i}.jpg") for i in itertools.count())
    began = time.monotonic()
    for result in fetch(requests, _POLICY, HostPolicy()):
        told[result.status] += 1
        worked = time.thread_time()
        while time.thread_time() - worked < _WORK_S:
            pass
        if time.monotonic() - began > seconds:
            return told
    return told


def _serve(listening: socket.socket, delays_s: tuple[float, float]) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode()
    delay = random.Random(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(delay.uniform(*delays_s))
            writer.write(head + _BODY)
            await writer.drain()

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # clients that leave
        await (await asyncio.start_server(answer, sock=listening)).serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
