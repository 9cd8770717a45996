"""Conversations without end from the data of a stage: curated sets by their captions, files of instructions."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.errors import InputError
from schemas.generative import Captions
from schemas.generative import Instructions as InstructionsEntry
from training.curated_set import Cache, CuratedSet, open_sets
from training.generative.conversations import Conversation, captioned, drawn_evenly
from training.generative.instructions import Instructions
from training.order import next_set, order_from

_SHUFFLE_ROWS = 10_000  # shards are read together until they have so many rows, as in contrastive training


class Source(Protocol):
    """Conversations by seed and epoch."""

    @property
    def weight(self) -> float:
        """Against the other sources'."""

    @property
    def identity(self) -> str:
        """What it holds, for a run that goes on with the same."""

    def from_row(self, start: int, seed: Sequence[int], reader: Executor | None) -> Iterator[Conversation]:
        """Without end, after `start` of them have been seen."""


@dataclass
class Captioned:
    """The pairs of a curated set: a caption is the answer to one of the prompts, drawn anew in every epoch."""

    curated: CuratedSet
    prompts: Sequence[str]

    @property
    def weight(self) -> float:
        """The set's."""
        return self.curated.weight

    @property
    def identity(self) -> str:
        """The set's version, and the prompts."""
        asked = hashlib.sha256(json.dumps(list(self.prompts)).encode()).hexdigest()
        return f"{self.curated.label} prompts {asked[:16]}"

    def from_row(self, start: int, seed: Sequence[int], reader: Executor | None) -> Iterator[Conversation]:
        """Without end, after `start` rows have been seen. Raises RunError."""
        nothing_kept = Cache(0, 1, lambda stored: [])
        rows = self.curated.from_row(start, _SHUFFLE_ROWS, seed, nothing_kept, reader)
        for place, (row, caption) in enumerate(rows, start):
            draw = f"{seed[0]}:{place // self.curated.rows}:{row.key}:prompt"
            stored = row.picture if isinstance(row.picture, bytes) else None
            name = f"{self.curated.location} row {row.key}"
            yield captioned(name, stored, caption, drawn_evenly(self.prompts, draw))


@dataclass
class Instructed:
    """The conversations of a file, in another order every epoch."""

    instructions: Instructions
    weight: float

    @property
    def identity(self) -> str:
        """The file's."""
        return self.instructions.identity

    def from_row(self, start: int, seed: Sequence[int], reader: Executor | None) -> Iterator[Conversation]:
        """Without end, after `start` conversations have been seen."""
        for _, _, numbers in order_from([self.instructions.rows], 1, seed, start):
            for number in numbers.tolist():
                yield self.instructions.conversation(number)


class Drawn(NamedTuple):
    """A conversation as it is drawn, and how many of each source were seen before it."""

    conversation: Conversation
    before: tuple[int, ...]


def open_sources(entries: Sequence[Captions | InstructionsEntry], frames: int = 8) -> list[Source]:
    """What the entries of a stage's `data` name; all files are looked through. Raises InputError, RunError."""
    sources: list[Source] = []
    for entry in entries:
        if isinstance(entry, Captions):
            prompts = prompts_of(entry.prompts)
            sources += [Captioned(one, prompts) for one in open_sets([entry])]
        else:
            images = None if entry.images is None else Path(entry.images)
            sources.append(Instructed(Instructions(Path(entry.instructions), images, entry.set, frames), entry.weight))
    return sources


def prompts_of(prompts: Sequence[str] | str) -> list[str]:
    """The prompts themselves: as listed, or the lines of a text file. Raises InputError."""
    if not isinstance(prompts, str):
        found = list(prompts)
    else:
        try:
            found = [line.strip() for line in Path(prompts).read_text("utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise InputError(f"prompts {prompts}: cannot be read: {error.strerror}; a list is taken too") from error
        except UnicodeDecodeError as error:
            raise InputError(f"prompts {prompts}: is no UTF-8 text; write one prompt a line") from error
    if not found:
        raise InputError(f"prompts {prompts or ''}: has none; write one a line, or leave `prompts` out")
    return found


def drawn(sources: Sequence[Source], seed: int, position: Sequence[int], reader: Executor) -> Iterator[Drawn]:
    """Conversations without end, after `position` of each source; those seen stay in proportion to the weights."""
    seen, weights = list(position), [source.weight for source in sources]
    streams = [source.from_row(seen[n], (seed, n), reader) for n, source in enumerate(sources)]
    while True:
        number = next_set(seen, weights)
        before = tuple(seen)
        seen[number] += 1
        yield Drawn(next(streams[number]), before)
