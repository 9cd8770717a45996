"""The three protocols that servers of vision-language models speak: requests, and what their answers say.

Sources: OpenAI's reference of `POST /v1/chat/completions` (vLLM and SGLang speak it too), Anthropic's of
`POST /v1/messages` (version 2023-06-01), Google's of `POST /v1beta/models/<model>:generateContent`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from curation.models.chat.question import Answer, Question

Json = dict[str, Any]
_BLOCKED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")


@dataclass(frozen=True)
class Sampling:
    """Which model answers, and how. `schema` is the JSON Schema of the answer, where it is to be JSON."""

    model: str
    max_tokens: int
    temperature: float | None = None
    seed: int | None = None
    schema: Mapping[str, Any] | None = None


class ChatProtocol(Protocol):
    """How to ask; `answer` raises KeyError, TypeError, IndexError, ValueError or AttributeError for another shape."""

    official_url: str
    has_seed: bool

    def path(self, model: str) -> str:
        """What follows the server's URL."""

    def headers(self, key: str) -> dict[str, str]:
        """Headers that carry the key; it may be empty."""

    def body(self, question: Question, sampling: Sampling) -> Json:
        """The request."""

    def answer(self, said: Json) -> Answer:
        """What the body of an answer with status 200 says."""


class OpenAI:
    """Chat completions."""

    official_url = "https://api.openai.com/v1"
    has_seed = True

    def path(self, model: str) -> str:
        return "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def body(self, question: Question, sampling: Sampling) -> Json:
        picture = {"url": f"data:{question.media_type};base64,{_base64(question)}"}
        content = [{"type": "image_url", "image_url": picture}, {"type": "text", "text": question.prompt}]
        # `max_tokens` is what older servers call it; OpenAI's newer models refuse that name.
        form: Json | None = None
        if sampling.schema is not None:
            named = {"name": "answer", "strict": True, "schema": dict(sampling.schema)}
            form = {"type": "json_schema", "json_schema": named}
        return _given(
            model=sampling.model,
            messages=[{"role": "user", "content": content}],
            max_completion_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed,
            response_format=form,
        )

    def answer(self, said: Json) -> Answer:
        choice, usage = said["choices"][0], said.get("usage") or {}
        message = choice["message"]
        tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Answer(message.get("refusal") or "", *tokens, "refusal")
        return Answer(
            _text(message.get("content")), *tokens, "length" if choice["finish_reason"] == "length" else "end"
        )


class Anthropic:
    """Messages."""

    official_url = "https://api.anthropic.com"
    has_seed = False

    def path(self, model: str) -> str:
        return "/v1/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01"} | ({"x-api-key": key} if key else {})

    def body(self, question: Question, sampling: Sampling) -> Json:
        source = {"type": "base64", "media_type": question.media_type, "data": _base64(question)}
        content = [{"type": "image", "source": source}, {"type": "text", "text": question.prompt}]
        return _given(
            model=sampling.model,
            max_tokens=sampling.max_tokens,
            messages=[{"role": "user", "content": content}],
            temperature=sampling.temperature,
        )

    def answer(self, said: Json) -> Answer:
        usage, stop = said.get("usage") or {}, said["stop_reason"]
        tokens = _sum(usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        ends = {"refusal": "refusal", "max_tokens": "length"}
        return Answer(_text(said["content"]), tokens, usage.get("output_tokens"), ends.get(stop, "end"))  # type: ignore[arg-type]


class Gemini:
    """generateContent."""

    official_url = "https://generativelanguage.googleapis.com/v1beta"
    has_seed = True

    def path(self, model: str) -> str:
        return f"/models/{quote(model.removeprefix('models/'), safe='')}:generateContent"

    def headers(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key} if key else {}

    def body(self, question: Question, sampling: Sampling) -> Json:
        picture = {"mimeType": question.media_type, "data": _base64(question)}
        schema = None if sampling.schema is None else _as_openapi(sampling.schema)
        return {
            "contents": [{"role": "user", "parts": [{"inlineData": picture}, {"text": question.prompt}]}],
            "generationConfig": _given(
                maxOutputTokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seed=sampling.seed,
                responseMimeType=None if schema is None else "application/json",
                responseSchema=schema,
            ),
        }

    def answer(self, said: Json) -> Answer:
        usage = said.get("usageMetadata") or {}
        tokens = usage.get("promptTokenCount"), _sum(usage, "candidatesTokenCount", "thoughtsTokenCount")
        if (blocked := (said.get("promptFeedback") or {}).get("blockReason")) is not None:
            return Answer(blocked, *tokens, "refusal")
        candidate = said["candidates"][0]
        reason = candidate.get("finishReason")
        if reason in _BLOCKED:
            return Answer(reason, *tokens, "refusal")
        parts = [part for part in candidate.get("content", {}).get("parts", []) if not part.get("thought")]
        return Answer(_text(parts), *tokens, "length" if reason == "MAX_TOKENS" else "end")


PROTOCOLS: Mapping[str, ChatProtocol] = {"openai": OpenAI(), "anthropic": Anthropic(), "gemini": Gemini()}


def _base64(question: Question) -> str:
    return base64.b64encode(question.picture).decode()


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _text(content: str | Sequence[Json] | None) -> str:
    """The text of an answer: as it is, or of all parts that are text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if "text" in part)


def _sum(usage: Json, *names: str) -> int | None:
    counts = [usage[name] for name in names if usage.get(name) is not None]
    return sum(counts) if counts else None


def _as_openapi(schema: Any) -> Any:
    """A JSON Schema in the part of OpenAPI's that Gemini takes: without `additionalProperties`."""
    if not isinstance(schema, Mapping):
        return schema
    return {name: _as_openapi(value) for name, value in schema.items() if name != "additionalProperties"}
