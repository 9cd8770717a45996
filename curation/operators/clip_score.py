"""CLIP score: the cosine of the stored vectors."""

from typing import Any, ClassVar

import numpy as np

from curation.operator import Batch, Failure, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column, any_embedding
from schemas.errors import InputError


class ClipScore(Operator):
    """Cosine of the picture's and the caption's vectors, as they are stored."""

    version: ClassVar[int] = 2
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def reads(self) -> tuple[Column, ...]:
        """Both vectors, of one width."""
        return (any_embedding(c.CLIP_IMAGE), any_embedding(c.CLIP_TEXT))

    @property
    def adds(self) -> tuple[Column, ...]:
        """The score."""
        return (c.CLIP_SCORE,)

    def run(self, batch: Batch, opened: Any) -> Output:
        """The score of each row; computed in float64 from the stored float16, so that it is the same everywhere."""
        image_ND = batch.vectors(c.CLIP_IMAGE).astype(np.float64)
        text_ND = batch.vectors(c.CLIP_TEXT).astype(np.float64)
        if image_ND.shape != text_ND.shape:
            widths = f"{c.CLIP_IMAGE} has {image_ND.shape[1]} numbers, {c.CLIP_TEXT} has {text_ND.shape[1]}"
            raise InputError(f"clip_score: {widths}; read both from one model")
        with np.errstate(invalid="ignore"):  # of vectors that are not finite, which fail below
            lengths_N = np.linalg.norm(image_ND, axis=1) * np.linalg.norm(text_ND, axis=1)
            dots_N = (image_ND * text_ND).sum(axis=1)
            cosines_N = np.divide(dots_N, lengths_N, out=np.zeros_like(dots_N), where=lengths_N > 0)
        scores_N = np.clip(cosines_N, -1, 1).astype(np.float32)
        zero = np.flatnonzero(lengths_N == 0).tolist()
        failures = {row: Failure("zero_vector", "one of the vectors is zero and has no direction") for row in zero}
        for row in np.flatnonzero(~np.isfinite(lengths_N)).tolist():  # vectors that a source brings may be anything
            failures[row] = Failure("not_finite", "one of the vectors holds NaN or infinity")
        return Output({c.CLIP_SCORE.name: scores_N}, failures)
