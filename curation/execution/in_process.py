"""The executor without Ray: one child process, so that a crash is survived; none at all for debugging."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from curation.execution.executor import WorkerDied
from curation.execution.worker import Opened

_opened = Opened()


class InProcess:
    """Runs tasks one after another, in one child process or (debug) in this one."""

    def __init__(self, *, debug: bool = False) -> None:
        self._debug = debug
        self._pool: ProcessPoolExecutor | None = None

    def slots(self, actor: bool) -> int:
        """One task at a time, of whichever kind."""
        return 1

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> "Future[Any]":
        """Start a task; with `debug` it has run when this returns, and its exception is raised here."""
        if self._debug:
            future: Future[Any] = Future()
            future.set_result(_call(function, task, actor))
            return future
        for _ in range(2):
            try:
                return self._living_pool().submit(_call, function, task, actor)
            except BrokenProcessPool:
                self._pool = None
        raise WorkerDied

    def wait(self, handles: "list[Future[Any]]") -> "list[tuple[Future[Any], Callable[[], Any]]]":
        """Wait for the first finished tasks."""
        done = wait(handles, return_when=FIRST_COMPLETED).done
        return [(future, partial(self._result, future)) for future in done]

    def close(self) -> None:
        """Stop the child at once."""
        if self._pool is not None:
            for process in list(self._pool._processes.values()):
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _result(self, future: "Future[Any]") -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            self._pool = None
            raise WorkerDied from None

    def _living_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: this process has threads (DuckDB, Arrow) whose locks a fork would copy.
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return self._pool


def _call(function: Callable[..., Any], task: Any, actor: bool) -> Any:
    return function(task, actor=actor, opened=_opened)
