"""libcurl's multi interface over epoll: which sockets wait for what, the timer, and a bell for other threads."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pycurl

from curation.fetch.http.transfer import Answer, Transfer

_EPOLL = hasattr(select, "epoll")  # else poll: the same but for the unit of time
_EVENTS = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}
_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP


class CurlLoop:
    """Runs transfers. All methods but `ring` belong to one thread."""

    def __init__(self) -> None:
        self._poller: Any = select.epoll() if _EPOLL else select.poll()
        self._watched: set[int] = set()
        self._bell, self._heard = socket.socketpair()
        for end in (self._bell, self._heard):
            end.setblocking(False)
        self._hears = self._heard.fileno()
        self._poller.register(self._hears, select.POLLIN)
        self._rung = False
        self._running: dict[pycurl.Curl, Transfer] = {}
        self._timer: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)

    def __len__(self) -> int:
        return len(self._running)

    def ring(self) -> None:
        """Wake the loop; any thread may."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):  # full of rings already, or closed
                self._bell.send(b"!")

    def start(self, transfer: Transfer) -> None:
        """Let a transfer run that has been aimed."""
        self._running[transfer.handle] = transfer
        self._multi.add_handle(transfer.handle)

    def drop(self, transfer: Transfer) -> None:
        """End a transfer that runs; its handle can be used again."""
        del self._running[transfer.handle]
        self._multi.remove_handle(transfer.handle)

    def turn(self, until: float | None) -> Iterator[tuple[Transfer, Answer]]:
        """Wait for something to happen, until a monotonic moment at most, and give what has ended."""
        moments = [moment for moment in (self._timer, until) if moment is not None]
        patience_s = max(0.0, min(moments) - time.monotonic()) if moments else None
        for descriptor, events in self._wait(patience_s):
            if descriptor == self._hears:
                self._heard.recv(65536)
                self._rung = False
            else:
                readable = pycurl.CSELECT_IN if events & _READABLE else 0
                writable = pycurl.CSELECT_OUT if events & select.POLLOUT else 0
                self._multi.socket_action(descriptor, readable | writable)
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        yield from self._ended()

    def close(self) -> None:
        """Drop what runs."""
        for handle in self._running:
            self._multi.remove_handle(handle)
            handle.close()
        self._running.clear()
        self._multi.close()
        if _EPOLL:
            self._poller.close()
        self._bell.close()
        self._heard.close()

    def _wait(self, patience_s: float | None) -> list[tuple[int, int]]:
        unit = 1 if _EPOLL else 1000
        found: list[tuple[int, int]] = self._poller.poll(None if patience_s is None else patience_s * unit)
        return found

    def _ended(self) -> Iterator[tuple[Transfer, Answer]]:
        queued = 1
        while queued:
            queued, done, failed = self._multi.info_read()
            for handle, code, message in [*((handle, 0, "") for handle in done), *failed]:
                self._multi.remove_handle(handle)
                transfer = self._running.pop(handle)
                yield transfer, transfer.answer(code, message if isinstance(message, str) else repr(message))

    def _on_socket(self, event: int, descriptor: int, _multi: object, _data: object) -> None:
        """libcurl says what it waits for on a socket. Nothing may be raised here."""
        with contextlib.suppress(ValueError, OSError):
            if event == pycurl.POLL_REMOVE:
                self._watched.discard(descriptor)
                self._poller.unregister(descriptor)
            elif descriptor in self._watched:
                self._poller.modify(descriptor, _EVENTS.get(event, 0))
            else:
                self._watched.add(descriptor)
                self._poller.register(descriptor, _EVENTS.get(event, 0))

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
