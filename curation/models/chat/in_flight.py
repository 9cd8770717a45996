"""Many waits at once: coroutines on an event loop of its own thread, a bounded number, results as they come."""

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_flight(
    items: Iterator[Item | None],
    work: Callable[[Item], Coroutine[Any, Any, Result]],
    close: Callable[[], Awaitable[None]],
    most: int,
) -> Generator[Result | None, None, None]:
    """What `work` makes of each item, in the order in which it is done, with at most that many under way.

    None among the items comes back as None: the caller has something else to look at. The first exception ends it;
    then, or when it is closed, what is under way is cancelled. `close` is awaited last, on the same loop.
    """
    done: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
    running = 0
    with _event_loop(close) as loop:
        for item in items:
            if item is None:
                yield None
                continue
            asyncio.run_coroutine_threadsafe(work(item), loop).add_done_callback(done.put)
            running += 1
            while running >= most or not done.empty():
                running -= 1
                yield done.get().result()
        for _ in range(running):
            yield done.get().result()


@contextlib.contextmanager
def _event_loop(close: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="chat", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        if not sys.is_finalizing():  # else the thread runs no more, and the process ends
            asyncio.run_coroutine_threadsafe(_end(close), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await close()
    await asyncio.get_running_loop().shutdown_default_executor()
