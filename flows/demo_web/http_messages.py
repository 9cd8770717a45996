"""As much of HTTP/1.1 as a server of files needs: read a request, write the head of an answer."""

import asyncio
import http
import mimetypes
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """The first line of a request, and whether the connection may be used again."""

    method: str
    target: str
    keep_alive: bool


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None where there is none, or none that can be read. Bodies are not expected."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *headers = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[0] not in ("GET", "HEAD"):
        return None
    closes = any(header.lower().replace(" ", "") == "connection:close" for header in headers)
    return Request(words[0], words[1], words[2] == "HTTP/1.1" and not closes)


def head_of(status: int, length_bytes: int, path: str) -> bytes:
    """The head of an answer with a body of that length."""
    kind = (mimetypes.guess_type(path)[0] if status == 200 else "text/plain") or "application/octet-stream"
    lines = [
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
        f"Content-Length: {length_bytes}",
        f"Content-Type: {kind}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()
