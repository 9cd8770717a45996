"""A server of vision-language models: many requests in flight, within its limits, tried again where that helps.

The URL is the user's own choice, so private addresses are allowed, unlike those that `download` fetches from.
The key stands in the headers alone: whatever a server or the client says is shown without it.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import httpx2

from curation.fetch.http.head import retry_after_s
from curation.models.chat import refused_requests as refused
from curation.models.chat.answer_book import AnswerBook
from curation.models.chat.in_flight import in_flight
from curation.models.chat.pace import Pace
from curation.models.chat.protocols import PROTOCOLS, Sampling
from curation.models.chat.question import Answer, Answers, Question, Questions
from curation.operator import Failure
from curation.storage.store import digest
from schemas.errors import RunError

_MOST_PAUSE_S = 120.0  # who asks for a longer one fails the row, as if it had not answered
_MOST_ANSWER_BYTES = 4 << 20
_MOST_FAILURES = 50  # one after the other, after which the run stops rather than fail the whole pool
_TOKENS_PER_CHAR, _TOKENS_PER_PICTURE = 0.25, 1000  # what a request is taken for until one was answered


@dataclass(frozen=True)
class Limits:
    """What a server gets from one worker. None: no limit."""

    concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    timeout_s: float
    retries: int


@dataclass(frozen=True)
class _Unanswered:
    """An attempt that came to nothing; `asked_s` is the pause that the server asks for."""

    failure: Failure
    asked_s: float = 0.0


class ChatServer:
    """One model of one server, for all questions of a worker."""

    def __init__(
        self, protocol: str, url: str, sampling: Sampling, limits: Limits, book: AnswerBook, key: str = ""
    ) -> None:
        self._name, self._protocol, self._sampling, self._limits = protocol, PROTOCOLS[protocol], sampling, limits
        self._endpoint = url.rstrip("/") + self._protocol.path(sampling.model)
        self._key, self._book = key, book
        self._pace = Pace(limits.requests_per_minute, limits.tokens_per_minute)
        self._failures = 0  # in a row

    def answered(self, questions: Questions) -> Answers:
        """The answers, as they come; what is in the book is not asked, and equal questions are asked once.

        Raises RunError where it makes no sense to go on.
        """
        waiting: dict[str, list[int]] = {}
        ready: list[tuple[int, Answer | Failure]] = []
        client = self._client()
        asked = in_flight(
            self._open(questions, waiting, ready),
            lambda one: self._ask(client, *one),
            client.aclose,
            self._limits.concurrency,
        )
        doubtful: list[tuple[int, Answer | Failure]] = []  # failed, one after the other: it may be the server
        with closing(asked):
            for done in asked:
                if done is not None:
                    question, outcome = done
                    doubtful += [(row, outcome) for row in waiting.pop(question)]
                    if not self._counts(outcome):
                        ready += doubtful
                        doubtful = []
                yield from ready
                ready.clear()
        yield from doubtful

    def _open(
        self,
        questions: Questions,
        waiting: dict[str, list[int]],
        ready: list[tuple[int, Answer | Failure]],
    ) -> Iterator[tuple[str, Question] | None]:
        """The questions that must be asked, with their digests; None where `ready` has got a row."""
        for row, question in questions:
            if isinstance(question, Failure):
                ready.append((row, question))
                yield None
                continue
            name = self._digest(question)
            known = self._book.get(name)
            if known is not None:
                ready.append((row, known))
                yield None
            elif name in waiting:
                waiting[name].append(row)
            else:
                waiting[name] = [row]
                yield name, question

    def _digest(self, question: Question) -> str:
        """What an answer hangs on: the same question has the same answer on whatever server."""
        sampling = asdict(self._sampling)
        return digest([self._name, sampling, question.prompt, question.media_type, question.picture_sha256])

    def _counts(self, outcome: Answer | Failure) -> bool:
        """Whether an outcome may be the server's fault rather than the row's. Raises RunError where many are."""
        if not isinstance(outcome, Failure) or outcome.status not in refused.PASSING:
            self._failures = 0
            return False
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            raise RunError(
                f"{self._endpoint}: {self._failures} requests in a row came to nothing, the last one so: "
                f"{outcome.error}; these rows wait for the next run: mend the server or the step, and run the same"
            )
        return True

    async def _ask(self, client: httpx2.AsyncClient, name: str, question: Question) -> tuple[str, Answer | Failure]:
        """Ask until there is an answer, or no hope of one. An answer is kept before anybody hears of it."""
        request = json.dumps(self._protocol.body(question, self._sampling)).encode()
        likely = int(len(question.prompt) * _TOKENS_PER_CHAR) + _TOKENS_PER_PICTURE + self._sampling.max_tokens
        for attempt in itertools.count():
            wait_s = self._pace.admit(likely)
            while wait_s > 0 or (wait_s := self._pace.quiet_s) > 0:  # a pause may be asked for while this one waits
                await asyncio.sleep(wait_s)
                wait_s = 0.0
            outcome = await self._attempt(client, request)
            if isinstance(outcome, Answer):
                self._pace.answered(likely, (outcome.prompt_tokens or 0) + (outcome.completion_tokens or 0))
                return name, await asyncio.to_thread(self._book.put, name, outcome)
            self._pace.answered(likely, 0)
            hopeless = outcome.failure.status not in refused.RETRIED or outcome.asked_s > _MOST_PAUSE_S
            if hopeless or attempt >= self._limits.retries:
                return name, outcome.failure
            if outcome.asked_s:
                self._pace.pause(outcome.asked_s)
            await asyncio.sleep(max(outcome.asked_s, min(2.0**attempt, 60.0) * random.uniform(0.5, 1.0)))
        raise AssertionError

    async def _attempt(self, client: httpx2.AsyncClient, request: bytes) -> Answer | _Unanswered:
        """One request. Raises RunError for an answer that would be the same for every other."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                http_status, headers, body = await self._exchange(client, request)
        except (TimeoutError, httpx2.TimeoutException):
            return self._unanswered(refused.TIMEOUT, f"there was no answer after {self._limits.timeout_s:g} s")
        except httpx2.TransportError as error:
            return self._unanswered(refused.UNREACHABLE, f"{type(error).__name__}: {error}")
        if http_status == 200:
            return self._read(body)
        said = f"it answered {http_status}: {refused.message_in(body)}"
        kind = refused.refused_as(http_status, body)
        if kind == refused.STOP:
            raise RunError(
                f"{self._shown(said)}; every other request would be answered so: look at the step's model, its url, "
                "and the key in the environment variable that key_env names"
            )
        asked_s = retry_after_s(headers.get("retry-after"), time.time()) or refused.retry_delay_s(body) or 0.0
        return self._unanswered(kind, said, asked_s)

    async def _exchange(self, client: httpx2.AsyncClient, request: bytes) -> tuple[int, Any, bytes]:
        body = bytearray()
        async with client.stream("POST", self._endpoint, content=request) as answer:
            async for chunk in answer.aiter_raw():  # as it comes: a compressed one may be of any length
                body += chunk
                if len(body) > _MOST_ANSWER_BYTES:
                    break
        return answer.status_code, answer.headers, bytes(body)

    def _read(self, body: bytes) -> Answer | _Unanswered:
        try:
            return self._protocol.answer(json.loads(body))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError, RecursionError) as error:
            said = f"what it answered is no answer of the protocol {self._name} ({type(error).__name__}: {error})"
            return self._unanswered(refused.BROKEN_ANSWER, said)

    def _unanswered(self, status: str, said: str, asked_s: float = 0.0) -> _Unanswered:
        return _Unanswered(Failure(status, self._shown(said)), asked_s)

    def _shown(self, said: str) -> str:
        """What may be shown to people: never the key, which some servers repeat."""
        whole = f"{self._endpoint}: {said}"
        return whole.replace(self._key, "[key]") if self._key else whole

    def _client(self) -> httpx2.AsyncClient:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        most = self._limits.concurrency
        return httpx2.AsyncClient(
            headers=headers | self._protocol.headers(self._key),
            timeout=self._limits.timeout_s,
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
        )
