"""The pictures of a benchmark's questions, as conversations that a model is asked with.

Paths are relative to the folder that the user names; of a video, or a folder of its frames, frames are taken evenly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from schemas.errors import InputError
from training.evaluate.benchmark import Question
from training.evaluate.pictures import InParquet, InTar
from training.evaluate.pictures import Picture as Place
from training.generative.conversations import Conversation, Picture, Turn, decoded
from training.generative.pictures import Pictures

FRAMES = 8
_VIDEOS = {".mp4", ".webm", ".avi", ".mkv", ".mov", ".gif"}


@dataclass(frozen=True)
class Shown:
    """Where a benchmark's pictures and videos lie, and how many frames are taken of a video.

    `own`: the user has named each picture; a benchmark's file, which comes from elsewhere, names none outside `folder`.
    """

    folder: Path | None = None
    own: bool = False
    frames: int = FRAMES

    def require(self, question: Question) -> None:
        """Raise InputError where a picture of a question is not there."""
        for place in question.pictures:
            if isinstance(place, Path | str):
                self._found(question, Path(place))

    def conversation(self, question: Question) -> Conversation:
        """The question after its pictures; they are read later. Raises InputError where one is not there."""
        shown = [self._picture(question, place) for place in question.pictures]
        return Conversation(f"question {question.id}", (Turn("user", (*shown, question.prompt)),))

    def _picture(self, question: Question, place: Place) -> Picture:
        name = f"question {question.id}"
        if isinstance(place, np.ndarray):
            return Picture(name, lambda: [place])
        if isinstance(place, bytes):
            return Picture(name, lambda: [decoded(name, place)])
        if isinstance(place, InTar | InParquet):
            return Picture(str(place), partial(_stored, str(place), place))
        path = self._found(question, Path(place))
        video = path.is_dir() or path.suffix.lower() in _VIDEOS
        return Pictures(path.parent, frames=self.frames).of(path.name, video=video, clip_s=question.clip_s)

    def _found(self, question: Question, name: Path) -> Path:
        """The file of that name in the folder; older folders of COCO put a prefix before it."""
        if self.own:
            return name
        if self.folder is None:
            raise InputError(f"question {question.id}: its picture {name} is named by path; name its folder: images")
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"question {question.id}: its picture {name} does not lie in {self.folder}")
        for path in (self.folder / name, self._by_ending.get(name.name)):
            if path is not None and path.exists():
                return path
        raise InputError(
            f"question {question.id}: there is no {self.folder / name}; name the folder that holds the pictures "
            "(or videos) of all questions"
        )

    @cached_property
    def _by_ending(self) -> Mapping[str, Path]:
        """Files by what stands behind their last underscore: 000000000042.jpg for COCO_val2014_000000000042.jpg."""
        folder = self.folder
        if folder is None or not folder.is_dir():
            return {}
        return {path.name.rpartition("_")[2]: path for path in sorted(folder.iterdir())}


def _stored(name: str, place: InTar | InParquet) -> list[np.ndarray]:
    return [decoded(name, place.read())]
