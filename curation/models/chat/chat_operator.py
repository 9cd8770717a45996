"""What row operators have in common that ask a vision-language model about each picture."""

import itertools
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from pydantic import Field, PrivateAttr

from curation.models.chat.answer_book import AnswerBook
from curation.models.chat.local_model import LocalModel, folder_digest, require_folder
from curation.models.chat.prompt import columns_in, filled
from curation.models.chat.protocols import PROTOCOLS, Sampling
from curation.models.chat.question import Answer, Answerer, Questions, question_about, refusal_of
from curation.models.chat.refused_requests import PASSING
from curation.operator import Batch, Failure, Operator, Output, Resources, Workplace, setting
from schemas.columns import IMAGE, Column
from schemas.errors import InputError, RunError

_GROUP_ROWS = 64  # rows that go on together
_NAME_OF_A_VARIABLE = re.compile("[A-Z][A-Z0-9_]*")
_OF_A_SERVER = ("url", "model", "key_env", "requests_per_minute", "tokens_per_minute", "seed")

Batches = Iterator[tuple[np.ndarray, Batch]]
Outcome = Answer | Failure


class ChatOperator(Operator):
    """Asks a server or local weights; a subclass says what, and makes columns of the answers."""

    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=4, actor=True)
    captured: ClassVar[bool] = True
    passing: ClassVar[frozenset[str]] = PASSING
    batch_rows: ClassVar[int] = 64

    protocol: Literal["openai", "anthropic", "gemini"] = Field(
        "openai",
        description="openai: chat completions (vLLM, SGLang too); anthropic: messages; gemini: generateContent",
    )
    url: str | None = setting(
        None,
        "the server, as in http://localhost:8000/v1; without it, the protocol's own one. Private addresses are allowed",
    )
    model: str | None = Field(None, description="name of the model, as the server knows it")
    weights: str | None = setting(None, "in place of a server: folder of a local transformers model and its processor")
    max_tokens: int = Field(300, description="tokens that an answer may have", ge=1)
    temperature: float | None = Field(
        0.0, description="0: the likeliest answer; null: not sent, for models that refuse one", ge=0
    )
    seed: int | None = Field(None, description="of the server's sampling; anthropic knows none")
    longest_side_px: int | None = Field(
        None,
        description="send pictures shrunk so that the longest side has at most this; else as they are stored",
        gt=0,
    )
    key_env: str | None = setting(None, "name of the environment variable that holds the key; never the key itself")
    requests_per_minute: float | None = setting(
        None,
        "requests that begin in a minute, from one worker; there is one unless `execution` gives more actors",
        gt=0,
    )
    tokens_per_minute: float | None = setting(None, "tokens read and written in a minute, from one worker", gt=0)
    concurrency: int = setting(32, "requests that run at once in one worker", ge=1, le=4096)
    timeout_s: float = setting(120.0, "seconds that one request may take", gt=0)
    retries: int = setting(6, "further attempts after 429, 5xx, time-outs and lost connections", ge=0)
    batch_size: int = Field(8, description="local weights: rows per pass; the last one is padded to it", ge=1, le=1024)
    precision: Literal["fp32", "bf16"] = Field("fp32", description="local weights: number format of the arithmetic")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "local weights: where they run; auto takes a GPU")
    _types: Mapping[str, pa.DataType] = PrivateAttr(default_factory=dict)

    @property
    @abstractmethod
    def template(self) -> str:
        """What is asked; it may name columns."""

    @property
    def schema_of_answers(self) -> Mapping[str, Any] | None:
        """JSON Schema that answers are to have; None: they are text."""
        return None

    @abstractmethod
    def values(self, answer: Answer) -> Sequence[Any] | Failure:
        """What an answer gives to the columns of `adds`, in their order."""

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture, and the columns that the prompt names."""
        names = columns_in(self.template)
        return (IMAGE, *(Column(name, self._types.get(name, pa.string()), "part of the prompt") for name in names))

    def bound(self, types: Mapping[str, pa.DataType]) -> "ChatOperator":
        """The operator over columns of these types: a prompt may name any whose values are words or numbers."""
        for name in columns_in(self.template):
            if pa.types.is_fixed_size_binary(types.get(name, pa.null())):
                raise InputError(f"the prompt names {name}, which is an embedding; a model reads words and numbers")
        bound = self.model_copy()
        bound._types = types
        return bound

    def check(self) -> None:
        """Refuse what names no model, a URL that is none, and a key that is not there."""
        if (self.model is None) == (self.weights is None):
            raise InputError("name exactly one of model (of a server) and weights (a folder of a local model)")
        if self.weights is not None:
            beside = [name for name in _OF_A_SERVER if getattr(self, name) is not None]
            if beside:
                raise InputError(f"{beside[0]}: belongs to a server; weights are asked here: leave one of them out")
            require_folder(self.weights)
            return
        if self.seed is not None and not PROTOCOLS[self.protocol].has_seed:
            raise InputError(f"seed: the protocol {self.protocol} knows none; leave it out")
        _require_url(self._url)
        self._key()

    @property
    def _url(self) -> str:
        return self.url or PROTOCOLS[self.protocol].official_url

    def _key(self) -> str:
        """The key; empty where none is named. No error shows what stands in `key_env` unless it looks like a name."""
        if self.key_env is None:
            return ""
        shown = self.key_env if _NAME_OF_A_VARIABLE.fullmatch(self.key_env) else "what is written there"
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise InputError(
                f"key_env: {shown} is no environment variable that is set; write the name of the one that holds the "
                "key, as in `key_env: OPENAI_API_KEY`, and never the key itself"
            )
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"key_env: the variable {shown} holds more than a key; a key is one line of plain letters")
        return key

    def weights_digest(self) -> str:
        """SHA-256 of the folder's files, which stands in the fingerprint in place of its path; empty for a server."""
        return "" if self.weights is None else folder_digest(self.weights)

    def open(self) -> Answerer:
        """The model, without a store to keep answers in."""
        return self.open_at(Workplace())

    def open_at(self, workplace: Workplace) -> Answerer:
        """The model; what a server answers is kept in the store. Raises RunError."""
        if self.weights is not None:
            return LocalModel(self.weights, self.device, self.precision, self.batch_size, self.max_tokens)
        from curation.models.chat.server import ChatServer, Limits  # the HTTP client, which planning does not need

        assert self.model is not None
        sampling = Sampling(self.model, self.max_tokens, self.temperature, self.seed, self.schema_of_answers)
        limits = Limits(
            self.concurrency, self.requests_per_minute, self.tokens_per_minute, self.timeout_s, self.retries
        )
        try:
            key = self._key()
        except InputError as error:  # the run's own machine has it
            raise RunError(
                f"{error}; every worker needs it: set it before Ray is started, too (`pairmill up`)"
            ) from error
        return ChatServer(self.protocol, self._url, sampling, limits, AnswerBook(workplace.store), key)

    def run(self, batch: Batch, opened: Answerer) -> Output:
        """The outcome of each row of one batch."""
        numbered = iter([(np.arange(len(batch)), batch)])
        done = sorted(opened.answered(self._questions(numbered)), key=lambda one: one[0])
        return self._output([outcome for _, outcome in done])

    def stream(self, batches: Batches, opened: Answerer) -> Iterator[tuple[np.ndarray, Output]]:
        """Outcomes in the order in which answers come."""
        with closing(opened.answered(self._questions(batches))) as answered:
            for group in iter(lambda: list(itertools.islice(answered, _GROUP_ROWS)), []):
                yield np.array([row for row, _ in group], np.int64), self._output([one for _, one in group])

    def _questions(self, batches: Batches) -> Questions:
        names = columns_in(self.template)
        for rows, batch in batches:
            columns = {name: batch[name].to_pylist() for name in names}
            for place, row in enumerate(rows.tolist()):
                stored = batch.stored[place]
                assert stored is not None, "the row has no stored picture"
                prompt = filled(self.template, {name: values[place] for name, values in columns.items()})
                yield row, question_about(stored, prompt, self.longest_side_px)

    def _output(self, outcomes: Sequence[Outcome]) -> Output:
        found = [self._of_one(outcome) for outcome in outcomes]
        failures = {row: one for row, one in enumerate(found) if isinstance(one, Failure)}
        nothing = [None] * len(self.adds)
        columns = [nothing if isinstance(one, Failure) else one for one in found]
        return Output({c.name: [row[i] for row in columns] for i, c in enumerate(self.adds)}, failures)

    def _of_one(self, outcome: Outcome) -> Sequence[Any] | Failure:
        return outcome if isinstance(outcome, Failure) else refusal_of(outcome) or self.values(outcome)


def _require_url(url: str) -> None:
    """Raise InputError for what is no address of a server, or has a secret in it: it stands in the manifest."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError("url: is no http(s) URL; write the server's, as in http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "url: has a user name, a query or a fragment; a URL stands in the manifest, so keep the key in an "
            "environment variable and name it: `key_env: MY_KEY`"
        )
