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


@dataclass(frozen=True)
class Limits:
    """How much a question may take; `shown_rows` is how many rows a table on the terminal has at most."""

    time_s: float = 300.0
    memory_gb: float = 4.0
    shown_rows: int = 100


@contextlib.contextmanager
def within(limits: Limits, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Answer a question within its limits; DuckDB's errors become sentences. Raises InputError."""
    with _watched(limits.time_s, connection) as stopped:
        try:
            with _address_space(limits):
                yield
        except InputError:
            raise
        except Exception as error:
            raise _said(error, limits, stopped.is_set()) from error


@contextlib.contextmanager
def _watched(time_s: float, connection: duckdb.DuckDBPyConnection) -> Iterator[threading.Event]:
    """Interrupt the question when its time is over, which sets the event, or when a signal wants to end it.

    While DuckDB computes, Python's own handlers of signals wait for it. A signal's number arrives here at once; the
    handler then raises what it does when DuckDB has given up.
    """
    stopped = threading.Event()
    waiting, woken = socket.socketpair()
    woken.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(waiting, time_s, connection, stopped), daemon=True)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False) if is_main else -1
    watcher.start()
    try:
        yield stopped
    finally:
        if is_main:
            signal.set_wakeup_fd(before)
        woken.close()
        watcher.join()
        waiting.close()


def _watch(
    waiting: socket.socket, time_s: float, connection: duckdb.DuckDBPyConnection, stopped: threading.Event
) -> None:
    end = time.monotonic() + min(time_s, _LONGEST_S)
    while True:
        ready, _, _ = select.select([waiting], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            stopped.set()
            connection.interrupt()
            return
        numbers = waiting.recv(64)
        if not numbers:  # answered
            return
        if {signal.SIGINT, signal.SIGTERM} & set(numbers):
            connection.interrupt()


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
