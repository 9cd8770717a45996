"""A server that speaks the three protocols of vision-language models, strict about requests, and misbehaves on order.

Whatever is not as the protocol's reference has it is answered with 400 and stands in `violations`.
"""

import base64
import hashlib
import http.server
import json
import re
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

KEY = "sk-test-0123456789abcdef"
MODEL = "tiny-vlm"
_STARTS = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n", "image/webp": b"RIFF"}


@dataclass(frozen=True)
class Asked:
    """One request that was as it should be."""

    protocol: str
    prompt: str
    picture: bytes
    body: dict[str, Any]

    @property
    def picture_sha256(self) -> str:
        return hashlib.sha256(self.picture).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What the server does in place of answering; `hang_s` before it does it; status 0: it hangs up."""

    status: int = 200
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0


class Wrong(Exception):
    """A request that is not as the reference has it."""


@dataclass
class ChatServer:
    """What it was asked, and what it is to do next."""

    root: str
    key: str = KEY
    say: Callable[[Asked], str] = lambda asked: f"picture {asked.picture_sha256[:8]}"
    delay_s: float = 0.0
    next: deque[Reply] = field(default_factory=deque)  # before it answers as usual again
    always: Callable[[Asked], Reply | None] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)  # SHA-256 of the pictures of every request, answered or not
    violations: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, protocol: str) -> str:
        """What a step's `url` says."""
        return self.root + {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}[protocol]

    def step(self, protocol: str = "openai", **more: Any) -> dict[str, Any]:
        """Parameters of a step that asks this server."""
        return {"protocol": protocol, "url": self.url(protocol), "model": MODEL, "key_env": "TEST_KEY"} | more

    @property
    def paid(self) -> Counter[tuple[str, str]]:
        """How often each (prompt, picture) was answered."""
        return Counter((one.prompt, one.picture_sha256) for one in self.asked)


@contextmanager
def chat_server(**fields: Any) -> Iterator[ChatServer]:
    """A server on a free port of this machine."""
    holder: list[ChatServer] = []

    class Handler(_Handler):
        served = property(lambda self: holder[0])

    server = _Server(("127.0.0.1", 0), Handler)
    holder.append(ChatServer(f"http://127.0.0.1:{server.server_port}", **fields))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield holder[0]
    finally:
        server.shutdown()
        server.server_close()


def refusal(protocol: str) -> dict[str, Any]:
    """An answer in which the model refuses, as each protocol says it."""
    return {
        "openai": {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "refusal": "I cannot help."},
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        },
        "anthropic": {"type": "message", "role": "assistant", "content": [], "stop_reason": "refusal",
                      "usage": {"input_tokens": 5, "output_tokens": 3}},
        "gemini": {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5}},
    }[protocol]  # fmt: skip


def answer(protocol: str, text: str, *, cut: bool = False) -> dict[str, Any]:
    """An answer as each protocol says it: 100 tokens read, one written per word."""
    words = len(text.split())
    if protocol == "openai":
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": words, "total_tokens": 100 + words}
        return {"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
    if protocol == "anthropic":
        return {
            "id": "msg_x", "type": "message", "role": "assistant", "model": MODEL,
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 90, "cache_read_input_tokens": 10, "output_tokens": words},
        }  # fmt: skip
    parts = [{"text": "let me see", "thought": True}, {"text": text}]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "MAX_TOKENS" if cut else "STOP"}
    usage = {"promptTokenCount": 100, "candidatesTokenCount": words, "totalTokenCount": 100 + words}
    return {"candidates": [candidate], "usageMetadata": usage}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up in the middle."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Any

    def do_POST(self) -> None:
        served: ChatServer = self.served
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with served.lock:
            served.at_once += 1
            served.most_at_once = max(served.most_at_once, served.at_once)
        try:
            self._answer(served, json.loads(body))
        finally:
            with served.lock:
                served.at_once -= 1

    def _answer(self, served: ChatServer, body: dict[str, Any]) -> None:
        protocol = _protocol_of(self.path)
        if protocol is None:
            return self._send(Reply(404, {"error": {"message": f"no such path: {self.path}"}}))
        if served.key and self._key(protocol) != served.key:
            said = {"message": f"Incorrect API key provided: {self._key(protocol)}", "code": "invalid_api_key"}
            return self._send(Reply(401, {"error": said}))
        try:
            _require(self.headers["Content-Type"] == "application/json", "Content-Type is not application/json")
            model, asked = _READ[protocol](self, body)
        except (Wrong, KeyError, TypeError, ValueError, IndexError) as error:
            served.violations.append(f"{type(error).__name__}: {error}")
            return self._send(Reply(400, {"error": {"message": f"violation: {error}"}}))
        if model != MODEL:
            said = {"message": f"The model `{model}` does not exist", "code": "model_not_found"}
            return self._send(Reply(404, {"error": said}))
        with served.lock:
            served.begun.append(asked.picture_sha256)
            reply = served.next.popleft() if served.next else served.always(asked)
        time.sleep(served.delay_s)
        if reply is None:
            with served.lock:
                served.asked.append(asked)
            reply = Reply(200, answer(protocol, served.say(asked)))
        self._send(reply)

    def _key(self, protocol: str) -> str:
        if protocol == "openai":
            return (self.headers["Authorization"] or "").removeprefix("Bearer ")
        return self.headers[{"anthropic": "x-api-key", "gemini": "x-goog-api-key"}[protocol]] or ""

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.hang_s)
        if reply.status == 0:
            self.close_connection = True
            return
        content = json.dumps(reply.body).encode() if isinstance(reply.body, dict) else reply.body
        try:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def _protocol_of(path: str) -> str | None:
    known = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic"}
    return known.get(path) or ("gemini" if re.fullmatch(r"/v1beta/models/[^/:]+:generateContent", path) else None)


def _read_openai(request: Any, body: dict[str, Any]) -> tuple[str, Asked]:
    _require_keys(body, {"model", "messages"}, {"max_completion_tokens", "temperature", "seed", "response_format"})
    [message] = body["messages"]
    _require_keys(message, {"role", "content"})
    _require(message["role"] == "user", "role")
    picture, text = message["content"]
    _require(picture["type"] == "image_url" and text["type"] == "text", "parts")
    _require_keys(picture["image_url"], {"url"}, {"detail"})
    head, data = picture["image_url"]["url"].split(";base64,")
    _require_number(body, "max_completion_tokens", int)
    _require_number(body, "seed", int)
    if (form := body.get("response_format")) is not None:
        _require(form["type"] == "json_schema", "response_format")
        _require_keys(form["json_schema"], {"name", "schema"}, {"strict", "description"})
        _require(form["json_schema"]["schema"]["additionalProperties"] is False, "a strict schema is closed")
    return body["model"], Asked("openai", text["text"], _picture(head.removeprefix("data:"), data), body)


def _read_anthropic(request: Any, body: dict[str, Any]) -> tuple[str, Asked]:
    _require(request.headers["anthropic-version"] == "2023-06-01", "anthropic-version")
    _require(request.headers["Authorization"] is None, "Authorization beside x-api-key")
    _require_keys(body, {"model", "max_tokens", "messages"}, {"temperature", "system"})
    _require_number(body, "max_tokens", int)
    [message] = body["messages"]
    _require_keys(message, {"role", "content"})
    picture, text = message["content"]
    _require(picture["type"] == "image" and text["type"] == "text", "content blocks")
    _require_keys(picture["source"], {"type", "media_type", "data"})
    _require(picture["source"]["type"] == "base64", "source")
    found = _picture(picture["source"]["media_type"], picture["source"]["data"])
    return body["model"], Asked("anthropic", text["text"], found, body)


def _read_gemini(request: Any, body: dict[str, Any]) -> tuple[str, Asked]:
    _require("?" not in request.path, "a key in the URL")
    _require_keys(body, {"contents"}, {"generationConfig"})
    wanted = {"maxOutputTokens", "temperature", "seed", "responseMimeType", "responseSchema"}
    _require_keys(body["generationConfig"], set(), wanted)
    _require("additionalProperties" not in json.dumps(body), "Gemini's schemas know no additionalProperties")
    [content] = body["contents"]
    _require(content["role"] == "user", "role")
    picture, text = content["parts"]
    _require_keys(picture["inlineData"], {"mimeType", "data"})
    _require_keys(text, {"text"})
    found = _picture(picture["inlineData"]["mimeType"], picture["inlineData"]["data"])
    return request.path.split("/")[-1].split(":")[0], Asked("gemini", text["text"], found, body)


_READ = {"openai": _read_openai, "anthropic": _read_anthropic, "gemini": _read_gemini}


def _picture(media_type: str, data: str) -> bytes:
    found = base64.b64decode(data, validate=True)
    _require(found.startswith(_STARTS[media_type]), f"the picture is no {media_type}")
    return found


def _require_keys(value: dict[str, Any], wanted: set[str], allowed: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    _require(wanted <= set(value) <= wanted | allowed, f"wanted {sorted(wanted)}, here: {sorted(value)}")


def _require_number(body: dict[str, Any], name: str, kind: type) -> None:
    _require(type(body.get(name, kind())) is kind, f"{name} is no {kind.__name__}")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)
