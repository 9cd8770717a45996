"""CLIP score: the cosine of the stored vectors."""

from typing import Any, ClassVar

import numpy as np

from curation.operator import Batch, Failure, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column, any_embedding


class ClipScore(Operator):
    """Cosine of the picture's and the caption's vectors, as they are stored."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def reads(self) -> tuple[Column, ...]:
        """Both vectors, of any width."""
        return (any_embedding(c.CLIP_IMAGE), any_embedding(c.CLIP_TEXT))

    @property
    def adds(self) -> tuple[Column, ...]:
        """The score."""
        return (c.CLIP_SCORE,)

    def run(self, batch: Batch, opened: Any) -> Output:
        """The score of each row; computed in float64 from the stored float16, so that it is the same everywhere."""
        image_ND = batch.vectors(c.CLIP_IMAGE).astype(np.float64)
        text_ND = batch.vectors(c.CLIP_TEXT).astype(np.float64)
        norms_N = np.sqrt((image_ND**2).sum(1) * (text_ND**2).sum(1))
        dots_N = (image_ND * text_ND).sum(1)
        scores_N = np.divide(dots_N, norms_N, out=np.zeros_like(dots_N), where=norms_N > 0)
        zero = np.flatnonzero(norms_N == 0).tolist()
        failures = {row: Failure("zero_vector", "one of the vectors is zero and has no direction") for row in zero}
        return Output({c.CLIP_SCORE.name: scores_N.astype(np.float32)}, failures)
