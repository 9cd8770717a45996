"""A question about a picture, and what comes of it."""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.to_stored import to_stored
from curation.operator import Failure
from schemas.pixels import DecodeError, picture_size, stored_format

_MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class Question:
    """One picture, as the bytes of a JPEG, PNG or WebP, and what is asked about it."""

    prompt: str
    picture: bytes
    media_type: str

    @property
    def picture_sha256(self) -> str:
        """SHA-256 of the picture, hex."""
        return hashlib.sha256(self.picture).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a model said, and how many tokens it read and wrote (None where a server does not say).

    Raises ValueError for numbers of tokens that are none; halves of characters, which no column holds, become `?`.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    stop: Literal["end", "length", "refusal"] = "end"

    def __post_init__(self) -> None:
        for tokens in (self.prompt_tokens, self.completion_tokens):
            if tokens is not None and not (type(tokens) is int and 0 <= tokens < 2**31):
                raise ValueError(f"{str(tokens)[:40]!r} is no number of tokens")
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode())


Questions = Iterator[tuple[int, Question | Failure]]
Answers = Generator[tuple[int, Answer | Failure], None, None]


class Answerer(Protocol):
    """A model that is ready to be asked."""

    def answered(self, questions: Questions) -> Answers:
        """The answer to every numbered question, in any order; what is a failure already comes back as it is."""


def question_about(stored: bytes, prompt: str, longest_side_px: int | None) -> Question | Failure:
    """The question about a stored picture, shrunk (then a JPEG) where its longest side is longer than that."""
    try:
        name = stored_format(stored)
        if longest_side_px is not None and max(picture_size(stored)) > longest_side_px:
            shrunk = to_stored(stored, PictureForm(longest_side_px=longest_side_px))
            stored, name = shrunk.bytes, shrunk.format
        picture_size(stored)  # a broken header is not worth a request
    except DecodeError as error:
        return Failure(error.status, str(error))
    return Question(prompt, stored, _MEDIA_TYPES[name])


def refusal_of(answer: Answer) -> Failure | None:
    """Why an answer is none: the model refused, or said nothing."""
    if answer.stop == "refusal":
        return Failure("refused", f"the model refused to answer: {answer.text.strip() or 'it gave no reason'}")
    if answer.text.strip():
        return None
    if answer.stop == "length":
        return Failure("empty_answer", "the model used up its max_tokens before it said anything; allow it more")
    return Failure("empty_answer", "the model said nothing")
