"""Files of conversations about pictures: LLaVA's JSON, ShareGPT's, OpenAI's messages; told apart by what is in them.

    LLaVA      {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", …}]}
    ShareGPT   the same; also `messages`, roles user, assistant and system, `images`, `videos`
    OpenAI     {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": …}}, …]}, …]}

A JSON array of such entries, or JSON after JSON (JSONL).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from training.generative.conversations import Content, Conversation, Role, Turn
from training.generative.pictures import Pictures, in_set_by, places_in_set

_ROLES: Mapping[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "system": "system",
}  # fmt: skip
_LISTS = ("conversations", "messages", "conversation")
_FORMATS = (
    "an entry is LLaVA's or ShareGPT's {conversations: [{from, value}], image: ...}, "
    "or OpenAI's {messages: [{role, content}]}"
)
_MARKS = re.compile(r"\n?<(image|video)>\n?")
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Named:
    """A picture or a video by its name, before anybody knows where it lies."""

    name: str
    video: bool = False


Said = tuple[Role, tuple[str | Named, ...]]


class Instructions:
    """The conversations of one file; its text is kept, and an entry is taken apart when its turn comes."""

    def __init__(self, file: Path, images: Path | None = None, curated_set: str | None = None, frames: int = 8) -> None:
        """Read the file and look at every entry once. Raises InputError."""
        self.file = file
        self._text = _text_of(file)
        self._spans: list[tuple[int, int]] = []
        if images is not None and not images.is_dir():
            raise InputError(
                f"instructions {file}: there is no folder {images}; say in `images` where the pictures lie"
            )
        named = self._looked_through()
        in_set = None
        if curated_set is not None:
            in_set = places_in_set(curated_set, {one.name for one in named if in_set_by(one.name)})
        self._pictures = Pictures(images, in_set, frames)
        wrong = []
        for one, number in named.items():
            try:
                self._content(one)
            except ValueError as error:
                wrong.append(self._wrong(number, str(error)))
        _raise_first(wrong)

    @property
    def identity(self) -> str:
        """What it holds, by its name and digest."""
        return f"{self.file.name} {hashlib.sha256(self._text.encode()).hexdigest()}"

    @property
    def rows(self) -> int:
        """How many conversations."""
        return len(self._spans)

    def conversation(self, number: int) -> Conversation:
        """The conversation of that number, from 0; its pictures are not read yet."""
        start, end = self._spans[number]
        said = _learnable(_turns(json.loads(self._text[start:end])))
        turns = tuple(Turn(role, tuple(self._content(one) for one in contents)) for role, contents in said)
        return Conversation(f"{self.file} entry {number + 1}", turns)

    def _looked_through(self) -> dict[Named, int]:
        """Find the entries; all pictures they name, and in which entry first. Raises InputError."""
        named: dict[Named, int] = {}
        wrong = []
        for number, (entry, start, end) in enumerate(_entries(self._text, self.file)):
            self._spans.append((start, end))
            try:
                for one in _named(_learnable(_turns(entry))):
                    named.setdefault(one, number)
            except ValueError as error:
                wrong.append(self._wrong(number, f"{error}; {_FORMATS}"))
        _raise_first(wrong)
        return named

    def _content(self, one: str | Named) -> Content:
        return one if isinstance(one, str) else self._pictures.of(one.name, video=one.video)

    def _wrong(self, number: int, sentence: str) -> InputError:
        return InputError(f"instructions {self.file}: entry {number + 1}: {sentence}")


def _named(said: Sequence[Said]) -> Iterator[Named]:
    return (one for _, contents in said for one in contents if isinstance(one, Named))


def _text_of(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"instructions {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"instructions {file}: is no UTF-8 text at byte {error.start:,}; {_FORMATS}") from error


def _entries(text: str, file: Path) -> Iterator[tuple[Any, int, int]]:
    """Each entry, and where it begins and ends in the text. Raises InputError."""
    place = _after_space(text, 0)
    array = text.startswith("[", place)
    place = _after_space(text, place + array)
    found, decoder = 0, json.JSONDecoder()
    while place < len(text) and not (array and text[place] == "]"):
        try:
            entry, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InputError(
                f"instructions {file}: entry {found + 1} is no JSON: line {error.lineno}: {error.msg}; {_FORMATS}"
            ) from error
        yield entry, place, end
        found += 1
        place = _after_space(text, end)
    if array and not text.startswith("]", place):
        raise InputError(f"instructions {file}: the array has no end after entry {found}; the file was cut short")
    if not found:
        raise InputError(f"instructions {file}: has no entries; {_FORMATS}")


def _raise_first(wrong: Sequence[InputError]) -> None:
    """Raise what is wrong first, and say how much else is."""
    if wrong:
        others = f" ({len(wrong) - 1:,} other entries are wrong, too)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{others}") from wrong[0]


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _turns(entry: Any) -> list[Said]:
    """The turns of an entry. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {_kind(entry)}, no object")
    turns = next((entry[name] for name in _LISTS if name in entry), None)
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"has no list of turns; it has: {', '.join(map(str, entry)) or 'nothing'}")
    beside = [Named(name) for name in _names(entry, "image", "images")]
    beside += [Named(name, video=True) for name in _names(entry, "video", "videos")]
    said = [_turn(turn, bool(beside)) for turn in turns]
    return _placed(said, beside) if beside else said


def _names(entry: Mapping[str, Any], *keys: str) -> list[str]:
    value: Any = next((entry[key] for key in keys if entry.get(key) is not None), [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{keys[0]}: is neither a name nor a list of names: {json.dumps(value)[:80]}")
    return names


def _turn(turn: Any, marked: bool) -> Said:
    """One turn; `marked`: `<image>` in a text stands for a picture named beside the turns."""
    if not isinstance(turn, dict):
        raise ValueError(f"a turn is {_kind(turn)}, no object")
    role, content = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"a turn is from {role!r}; known are {', '.join(_ROLES)}")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError(f"what {role} says is {_kind(content)}, neither text nor a list of parts")
    return _ROLES[role], tuple(one for part in content for one in _part(part, marked))


def _part(part: Any, marked: bool) -> list[str | Named]:
    """What a part of a turn says or shows; a marked place is a Named without a name."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        pieces = _MARKS.split(part["text"]) if marked else [part["text"]]
        # split gives text, mark, text, mark, text …
        shown = [Named("", video=piece == "video") if place % 2 else piece for place, piece in enumerate(pieces)]
        return [one for one in shown if one != ""]
    if kind in ("image", "image_url", "video", "video_url"):
        value = next((part[key] for key in (kind, "image", "video", "url", "path") if part.get(key)), "")
        name = value.get("url") if isinstance(value, dict) else value
        if isinstance(name, str) and (name or marked):
            return [Named(name, video=kind.startswith("video"))]
    raise ValueError(f"a part of a turn is neither text nor image_url: {json.dumps(part)[:80]}")


def _placed(said: Sequence[Said], beside: Sequence[Named]) -> list[Said]:
    """The pictures named beside the turns at their marks; without any mark, before what the user says first."""
    marks = [one for one in _named(said) if not one.name]
    if not marks:
        first = next((place for place, (role, _) in enumerate(said) if role == "user"), None)
        if first is None:
            raise ValueError("has pictures, but no turn of the user")
        return [(role, (*beside, *one) if place == first else one) for place, (role, one) in enumerate(said)]
    for kind in (False, True):
        shown, named = (sum(one.video == kind for one in group) for group in (marks, beside))
        if shown != named:
            word = "<video>" if kind else "<image>"
            raise ValueError(f"its turns have {shown} {word}, but it names {named}")
    waiting = {kind: iter([one for one in beside if one.video == kind]) for kind in (False, True)}
    return [
        (role, tuple(next(waiting[o.video]) if isinstance(o, Named) and not o.name else o for o in contents))
        for role, contents in said
    ]


def _learnable(said: list[Said]) -> list[Said]:
    """Without answers before the first question, as LLaVA reads its files, and without questions after the last."""
    asked = next((place for place, (role, _) in enumerate(said) if role == "user"), len(said))
    begun = [one for one in said[:asked] if one[0] == "system"] + said[asked:]
    return begun[: max((place for place, (role, _) in enumerate(begun, 1) if role == "assistant"), default=0)]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
