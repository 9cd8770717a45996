"""Simple counts over a caption."""

from typing import Any, ClassVar

from curation.operator import Batch, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column


class CaptionStats(Operator):
    """Characters and words of the caption."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.2)

    @property
    def reads(self) -> tuple[Column, ...]:
        """The caption."""
        return (c.CAPTION,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """Characters (code points) and words (split at white space)."""
        return (c.CAPTION_CHARS, c.CAPTION_WORDS)

    def run(self, batch: Batch, opened: Any) -> Output:
        """Counts for each caption of a batch; a missing caption is an empty one."""
        captions = [caption or "" for caption in batch[c.CAPTION.name].to_pylist()]
        return Output(
            {
                c.CAPTION_CHARS.name: [len(caption) for caption in captions],
                c.CAPTION_WORDS.name: [len(caption.split()) for caption in captions],
            }
        )
