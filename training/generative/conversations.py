"""What a model learns to answer: turns of text and pictures, whichever file they come from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from schemas.pixels import DecodeError, decode

Role = Literal["system", "user", "assistant"]


class Unfit(Exception):
    """A sample cannot be learnt from: a short class of fault, which is counted, and a sentence."""

    def __init__(self, fault: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault


@dataclass(frozen=True)
class Picture:
    """A picture, or a video, that is read when its turn comes: one uint8 pixels_HWC, or one per frame.

    `read` raises Unfit where there is nothing to see.
    """

    name: str
    read: Callable[[], list[np.ndarray]] = field(compare=False, repr=False)
    video: bool = False


Content = str | Picture


@dataclass(frozen=True)
class Turn:
    """What one side says: texts and pictures in their order."""

    role: Role
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class Conversation:
    """Turns of user and assistant; `name` says where it stands, for messages."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def pictures(self) -> list[Picture]:
        """Pictures and videos in the order in which they are shown."""
        return [content for turn in self.turns for content in turn.contents if isinstance(content, Picture)]

    @property
    def texts(self) -> list[str]:
        """All that is said."""
        return [content for turn in self.turns for content in turn.contents if isinstance(content, str)]

    @property
    def answers(self) -> int:
        """How many turns are the assistant's."""
        return sum(turn.role == "assistant" for turn in self.turns)

    def until(self, answers: int) -> "Conversation":
        """Its beginning, with so many answers."""
        ends = [place for place, turn in enumerate(self.turns, 1) if turn.role == "assistant"]
        return Conversation(self.name, self.turns[: ends[answers - 1]])

    def messages(self, seen: Mapping[Picture, Sequence[np.ndarray]], *, videos: bool) -> list[dict[str, Any]]:
        """The turns as transformers' chat templates take them; `videos`: as such, else as their frames one by one."""
        from PIL import Image

        messages = []
        for turn in self.turns:
            parts: list[dict[str, Any]] = []
            for content in turn.contents:
                if isinstance(content, str):
                    parts.append({"type": "text", "text": content})
                elif content.video and videos:
                    parts.append({"type": "video", "video": np.stack(seen[content])})
                else:
                    parts += [{"type": "image", "image": Image.fromarray(pixels_HWC)} for pixels_HWC in seen[content]]
            messages.append({"role": turn.role, "content": parts})
        return messages


def stored_picture(name: str, stored: bytes | None) -> Picture:
    """A picture whose bytes are at hand."""
    return Picture(name, lambda: [decoded(name, stored)])


def decoded(name: str, stored: bytes | None) -> np.ndarray:
    """uint8 pixels_HWC of stored bytes. Raises Unfit."""
    if stored is None:
        raise Unfit("missing", f"{name}: there is no picture")
    try:
        return decode(stored)
    except DecodeError as error:
        raise Unfit("broken", f"{name}: {error}") from error


def captioned(name: str, stored: bytes | None, caption: str, prompt: str) -> Conversation:
    """A picture's caption as the answer to a prompt; an empty prompt asks by the picture alone."""
    asked: tuple[Content, ...] = (stored_picture(name, stored), *([prompt] if prompt else []))
    return Conversation(name, (Turn("user", asked), Turn("assistant", (caption,))))


def drawn_evenly(choices: Sequence[str], draw: str) -> str:
    """One of the choices, the same for the same draw."""
    return choices[int.from_bytes(hashlib.sha256(draw.encode()).digest()[:8]) % len(choices)]
