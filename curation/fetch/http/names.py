"""Why a name could not be resolved: libcurl does not say, so the resolver is asked once more, in threads of its own.

A name that does not exist is link rot. A resolver that fails says nothing about the name; where it fails for many, the
run must stop, or a whole pool is written down as dead. So when failures are more than a web explains, a name that is
known to exist is looked up as a control.
"""

import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from curation.fetch.outcomes import DNS, NO_SUCH_HOST
from schemas.errors import RunError

RESOLVED = "resolved"
_THREADS = 4
_NO_SUCH = (socket.EAI_NONAME, socket.EAI_NODATA)
_CONTROL_NAME = "a.root-servers.net"  # exists as long as the domain name system does
_WINDOW_NAMES = 200
_ENOUGH_NAMES = 50
_SUSPICIOUS_FAILING, _SUSPICIOUS_MISSING = 0.5, 0.95
_KNOWN_NAMES = 3

Waiting = TypeVar("Waiting")


def look_up(host: str) -> tuple[str, str]:
    """(resolved, no_such_host or dns; the resolver's words). Blocks for as long as the resolver takes."""
    try:
        socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return (NO_SUCH_HOST if error.errno in _NO_SUCH else DNS), f"{host}: {error.strerror}"
    except (OSError, UnicodeError) as error:
        return NO_SUCH_HOST, f"{host}: {error}"
    return RESOLVED, ""


class Names(Generic[Waiting]):
    """Looks names up for jobs that wait for it, and watches over the resolver. Belongs to one thread."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._questions: queue.SimpleQueue[tuple[str, Waiting | None] | None] = queue.SimpleQueue()
        self._answers: deque[tuple[Waiting | None, str, str]] = deque()
        self._threads: list[threading.Thread] = []
        self._counted: set[str] = set()
        self._window: deque[str] = deque(maxlen=_WINDOW_NAMES)
        self._known: deque[str] = deque(maxlen=_KNOWN_NAMES)  # that were resolved in this run
        self._in_control = False
        self._waiting: set[Waiting] = set()

    def ask(self, host: str, job: Waiting) -> None:
        """Find out why a name was not resolved."""
        self._waiting.add(job)
        self._put(host, job)

    def answers(self) -> Iterator[tuple[Waiting, str, str]]:
        """(job, status, sentence) of what was found out. Raises RunError where the resolver does not work."""
        while self._answers:
            job, status, error = self._answers.popleft()
            if job is None:
                self._judge_control(status, error)
            elif job in self._waiting:
                self._waiting.remove(job)
                yield job, status, error

    def drain(self) -> list[Waiting]:
        """All that wait, and need not any more."""
        waiting, self._waiting = self._waiting, set()
        return list(waiting)

    def note(self, host: str, status: str) -> None:
        """A name was resolved, or not; each counts once."""
        if host in self._counted:
            return
        if len(self._counted) > 100 * _WINDOW_NAMES:
            self._counted.clear()
        self._counted.add(host)
        self._window.append(status)
        if status == RESOLVED:
            self._known.append(host)
        elif len(self._window) >= _ENOUGH_NAMES and not self._in_control:
            failing, missing = (self._window.count(one) / len(self._window) for one in (DNS, NO_SUCH_HOST))
            if failing >= _SUSPICIOUS_FAILING or missing >= _SUSPICIOUS_MISSING:
                self._in_control = True
                self._put(self._known[0] if self._known else _CONTROL_NAME, None)

    def close(self) -> None:
        """End the threads; one that waits for the resolver ends when it answers."""
        for _ in self._threads:
            self._questions.put(None)

    def _judge_control(self, status: str, error: str) -> None:
        self._in_control = False
        failed, names = sum(one != RESOLVED for one in self._window), len(self._window)
        self._window.clear()
        if status != RESOLVED:
            raise RunError(
                f"this machine's name resolver does not work: {failed} of the last {names} host names were not "
                f"resolved, and one that exists was not either ({error}); nothing was recorded for the rows under way. "
                "Mend the resolver (a caching one on each machine is best) and run the same again"
            )

    def _put(self, host: str, job: Waiting | None) -> None:
        self._questions.put((host, job))
        if len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._work, name="names", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            host, job = question
            self._answers.append((job, *look_up(host)))
            self._ring()
