"""A real HTTP server on this machine that serves a folder, misbehaves where it is told to, and counts requests."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import unquote, urlsplit

from flows.demo_web.http_messages import Request, head_of, read_request

_WAIT_S = 5.0
_DRIP_S = 0.5


@dataclass(frozen=True)
class Behaviour:
    """How a path answers: a status and a delay, perhaps only the first times; or not as a web server should."""

    status: int = 200
    delay_s: float = 0.0
    bad_answers: int = -1  # so many times as said here, then the file; -1: always
    manner: Literal["whole", "silent", "reset", "drip"] = "whole"  # silent: never answers; drip: a byte now and then


class DemoServer:
    """Serves a folder on 127.0.0.1 from a thread of its own; to be used with `with`, or `start` and `stop`."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Take the port (0: a free one), so that `base_url` is known. Raises OSError where it is taken."""
        self.folder = Path(folder).resolve()
        self.behaviours: Mapping[str, Behaviour] = {}  # by path, as in the URL; may be set at any time
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo web", daemon=True)

    @property
    def base_url(self) -> str:
        """Where the folder is served, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> dict[str, int]:
        """How often each path was asked for."""
        with self._lock:
            return dict(self._asked)

    def start(self) -> "DemoServer":
        """Begin to answer; nothing happens where it runs already."""
        if not self._thread.is_alive():
            self._thread.start()
            self._running.wait(_WAIT_S)
        return self

    def stop(self) -> None:
        """Close the port and all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(_WAIT_S)
        self._socket.close()

    def __enter__(self) -> "DemoServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._converse, sock=self._socket)
        self._running.set()
        await self._ended.wait()
        server.close()
        conversations = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after another on one connection."""
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._answer(request, writer) or not request.keep_alive:
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the server stops
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request as planned; whether the connection can go on."""
        path = urlsplit(request.target).path
        behaviour = self._behaviour(path)
        await asyncio.sleep(behaviour.delay_s)
        if behaviour.manner == "silent":
            await self._ended.wait()
        if behaviour.manner == "reset":
            writer.transport.abort()
        if behaviour.manner in ("silent", "reset"):
            return False
        status, body = self._content(path, behaviour.status)
        head = head_of(status, len(body), unquote(path))
        if behaviour.manner == "drip":
            await self._drip(head + body, writer)
        else:
            writer.write(head if request.method == "HEAD" else head + body)
            await writer.drain()
        return True

    async def _drip(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(len(answer)):
            writer.write(answer[start : start + 1])
            await writer.drain()
            await asyncio.sleep(_DRIP_S)

    def _behaviour(self, path: str) -> Behaviour:
        """How this answer is to be; counts the request."""
        with self._lock:
            self._asked[path] += 1
            asked = self._asked[path]
        planned = self.behaviours.get(path, Behaviour())
        return Behaviour() if 0 <= planned.bad_answers < asked else planned

    def _content(self, path: str, status: int) -> tuple[int, bytes]:
        """The file of a path, or a status and its number as the body."""
        file = (self.folder / unquote(path).lstrip("/")).resolve()
        if status == 200 and file.is_relative_to(self.folder) and file.is_file():
            return 200, file.read_bytes()
        status = 404 if status == 200 else status
        return status, f"{status}\n".encode()


def serve(folder: Path, behaviours: Mapping[str, Behaviour] | None = None, port: int = 0) -> DemoServer:
    """A server of any folder, started; `with serve(…) as server` stops it at the end."""
    server = DemoServer(folder, port)
    server.behaviours = behaviours or {}
    return server.start()
