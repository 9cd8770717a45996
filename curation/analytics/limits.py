"""How much a question may take: time by interrupt, memory by DuckDB's own limit and, for what escapes it, the kernel's.

DuckDB counts the memory of its tables, not that of a single value: `repeat('a', 2000000000)` took 4 GB under a limit of
0.5 GB. So the process's address space is capped too, for as long as the question is answered.
"""

import contextlib
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from schemas.errors import InputError

_HEADROOM_BYTES = 1 << 30  # code, buffers and threads beside DuckDB's own memory
_GB = 1_000_000_000
_LONGEST_S = 1e6
_ENDING = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Limits:
    """How much a question may take; `shown_rows` is how many rows a table on the terminal has at most."""

    time_s: float = 300.0
    memory_gb: float = 4.0
    shown_rows: int = 100


@contextlib.contextmanager
def within(limits: Limits, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Answer a question within its limits; DuckDB's errors become sentences. Raises InputError."""
    with _watched(limits.time_s, connection) as watch:
        try:
            with _address_space(limits):
                yield
        except InputError:
            raise
        except Exception as error:
            if watch.signal:  # DuckDB may have taken what its handler raised for a RuntimeError
                signal.raise_signal(watch.signal)
            raise _said(error, limits, watch.timed_out) from error


@dataclass
class _Watch:
    """Interrupts a question when its time is over, or when a signal wants to end it; says which it was.

    While DuckDB computes, Python's own handlers of signals wait for it. A signal's number arrives here at once; the
    handler then raises what it does when DuckDB has given up.
    """

    waiting: socket.socket
    time_s: float
    connection: duckdb.DuckDBPyConnection
    timed_out: bool = False
    signal: int = 0

    def run(self) -> None:
        end = time.monotonic() + min(self.time_s, _LONGEST_S)
        while True:
            ready, _, _ = select.select([self.waiting], [], [], max(0.0, end - time.monotonic()))
            numbers = self.waiting.recv(64) if ready else b""
            if ready and not numbers:  # answered
                return
            self.timed_out = not ready
            self.signal = next((number for number in numbers if number in _ENDING), 0)
            if self.timed_out or self.signal:
                self.connection.interrupt()
                return


@contextlib.contextmanager
def _watched(time_s: float, connection: duckdb.DuckDBPyConnection) -> Iterator[_Watch]:
    waiting, woken = socket.socketpair()
    woken.setblocking(False)
    watch = _Watch(waiting, time_s, connection)
    watcher = threading.Thread(target=watch.run, daemon=True)
    is_main = threading.current_thread() is threading.main_thread()  # only there signals can be heard
    before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False) if is_main else -1
    watcher.start()
    try:
        yield watch
    finally:
        if is_main:
            signal.set_wakeup_fd(before)
        woken.close()
        watcher.join()
        waiting.close()


def _said(error: Exception, limits: Limits, stopped: bool) -> Exception:
    """The error as a sentence; one that is not DuckDB's is handed on as it is."""
    if stopped:
        return InputError(f"sql: stopped after {limits.time_s:g} s; ask for less, or allow more: --time-limit")
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return InputError(
            f"sql: the question needs more than {limits.memory_gb:g} GB of memory; ask for fewer rows or groups, "
            "or allow more: --memory-limit"
        )
    return InputError(f"sql: {error}") if isinstance(error, duckdb.Error) else error


@contextlib.contextmanager
def _address_space(limits: Limits) -> Iterator[None]:
    """Cap what the process may map from here on; without /proc (not Linux) DuckDB's own limit is all there is."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + int(limits.memory_gb * _GB) + _HEADROOM_BYTES
    ceiling = min((limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY), default=wanted)
    resource.setrlimit(resource.RLIMIT_AS, (min(wanted, ceiling), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
