"""The executor without Ray: one child process, so that a crash is survived; none at all for debugging."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from curation.execution.executor import WorkerDied
from curation.execution.worker import Opened

_opened = Opened()  # of a child


class InProcess:
    """Runs tasks one after another, in one child process or (debug) in this one."""

    def __init__(self, *, debug: bool = False) -> None:
        self._opened_here = Opened() if debug else None
        self._pool: ProcessPoolExecutor | None = None
        self._queue: list[Future[Any]] = []  # what the child has, in the order in which it takes it
        self._culprits: set[Future[Any]] = set()  # what a child was at when it died

    @property
    def spreads(self) -> bool:
        """All it has is a child process beside this one."""
        return False

    def share(self, value: Any) -> Callable[[], Any]:
        """The value travels with the task."""
        return partial(_same, value)

    def slots(self, actor: bool) -> int:
        """One task at a time, of whichever kind."""
        return 1

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> "Future[Any]":
        """Start a task; with `debug` it has run when this returns."""
        if self._opened_here is not None:
            return _run_here(partial(function, task, actor=actor, opened=self._opened_here))
        for _ in range(2):
            try:
                future = self._living_pool().submit(_call, function, task, actor)
            except BrokenProcessPool:
                self._bury()
            else:
                self._queue.append(future)
                return future
        raise WorkerDied

    def wait(self, handles: "list[Future[Any]]") -> "list[tuple[Future[Any], Callable[[], Any]]]":
        """Wait for the first finished tasks."""
        done = wait(handles, return_when=FIRST_COMPLETED).done
        return [(future, partial(self._result, future)) for future in done]

    def close(self) -> None:
        """Stop the child at once."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _result(self, future: "Future[Any]") -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            if future in self._queue:
                self._bury()
            raise WorkerDied(blamed=future in self._culprits) from None
        finally:
            if future in self._queue:
                self._queue.remove(future)

    def _bury(self) -> None:
        """A child takes its tasks in order: the first that has no result is the one that it died of."""
        lost = [future for future in self._queue if isinstance(future.exception(), BrokenProcessPool)]
        self._culprits |= set(lost[:1])
        self._queue, self._pool = [], None

    def _living_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: this process has threads (DuckDB, Arrow) whose locks a fork would copy.
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin_child)
        return self._pool


def _same(value: Any) -> Any:
    return value


def _run_here(call: Callable[[], Any]) -> "Future[Any]":
    future: Future[Any] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # raised where the result is asked for, as by every executor
        future.set_exception(error)
    return future


def _begin_child() -> None:
    """Ctrl-C is the parent's to handle; and when the parent is gone, however it went, so is the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], task: Any, actor: bool) -> Any:
    return function(task, actor=actor, opened=_opened)
