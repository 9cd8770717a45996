"""What an answer that is none means: try again, fail the row, or stop the run.

A wrong key, an unknown model, an empty account or a wrong URL would fail every row of the pool: they stop the run.
Whatever a server says goes into errors cut short.
"""

import json
from collections.abc import Iterator
from typing import Any

CONTENT_POLICY, BAD_REQUEST = "content_policy", "bad_request"
RATE_LIMITED, SERVER_ERROR, TIMEOUT = "rate_limited", "server_error", "timeout"
UNREACHABLE, BROKEN_ANSWER = "unreachable", "broken_answer"
STOP = "stop"

RETRIED = frozenset({RATE_LIMITED, SERVER_ERROR, TIMEOUT, UNREACHABLE, BROKEN_ANSWER})
# A request that a server refuses as wrong may be right for its next version: `--retry-failed bad_request`.
PASSING = RETRIED | {BAD_REQUEST}

_BY_STATUS = {408: TIMEOUT, 409: SERVER_ERROR, 425: SERVER_ERROR, 429: RATE_LIMITED}
_OF_THE_REQUEST = (400, 413, 415, 422)
_POLICY = ("content_policy", "content_filter", "moderation", "responsibleai")
# OpenAI says 429 where the account is empty, and Gemini 400 where the key is wrong.
_ACCOUNT = ("insufficient_quota", "api_key_invalid", "billing")
_EMPTY_ACCOUNT = "Your credit balance"  # how Anthropic's 400 begins, which has no class of its own
_MOST_CHARS = 300


def refused_as(http_status: int, body: bytes) -> str:
    """The class of an answer whose status is not 200; STOP where it holds for all requests."""
    words = " ".join(_words(_json(body))).lower()
    if any(word in words for word in _ACCOUNT) or message_in(body).startswith(_EMPTY_ACCOUNT):
        return STOP
    if http_status >= 500 or http_status in _BY_STATUS:
        return _BY_STATUS.get(http_status, SERVER_ERROR)
    if http_status not in _OF_THE_REQUEST:
        return STOP
    return CONTENT_POLICY if any(word in words for word in _POLICY) else BAD_REQUEST


def message_in(body: bytes) -> str:
    """What a server says is wrong, in its own words."""
    said = _json(body)
    error = said.get("error", said) if isinstance(said, dict) else said
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else body.decode(errors="replace")
    return " ".join(text.split())[:_MOST_CHARS] or "nothing"


def retry_delay_s(body: bytes) -> float | None:
    """The pause that Gemini asks for in the body of a 429 (google.rpc.RetryInfo), in seconds."""
    for word in _words(_json(body), ("retryDelay",)):
        try:
            return float(word.removesuffix("s"))
        except ValueError:
            return None
    return None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(value: Any, names: tuple[str, ...] = ("code", "type", "status", "reason")) -> Iterator[str]:
    """The texts under these names, anywhere in an error."""
    if isinstance(value, list):
        for one in value:
            yield from _words(one, names)
    elif isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str):
                if name in names:
                    yield one
            else:
                yield from _words(one, names)
