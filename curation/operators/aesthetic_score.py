"""Aesthetic score: LAION's linear head over the stored vector of the picture."""

from typing import ClassVar

import numpy as np

from curation.models.clip_model import sha256_of
from curation.models.linear_head import LinearHead, read_linear_head, require_head
from curation.operator import Batch, Failure, Operator, Output, Resources, setting
from schemas import columns as c
from schemas.columns import Column, any_embedding
from schemas.errors import InputError

_FROM_UNIT_LENGTH = 0.01


class AestheticScore(Operator):
    """How much people like the look of a picture, 1 to 10, by LAION's linear head over its CLIP vector."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    weights: str = setting(
        ...,
        "file of the head (.safetensors, or .pth, of which nothing is executed); the published one is for ViT-L-14",
        examples=["sac+logos+ava1-l14-linearMSE.pth"],
    )

    @property
    def reads(self) -> tuple[Column, ...]:
        """The picture's vector, of the width that the head takes."""
        return (any_embedding(c.CLIP_IMAGE),)

    @property
    def adds(self) -> tuple[Column, ...]:
        """The score."""
        return (c.AESTHETIC_SCORE,)

    def check(self) -> None:
        """Refuse a file that is not there."""
        require_head(self.weights)

    def weights_digest(self) -> str:
        """SHA-256 of the file, which stands in the fingerprint in place of its path."""
        return sha256_of(self.weights)

    def open(self) -> LinearHead:
        """The head, folded. Raises RunError."""
        return read_linear_head(self.weights)

    def run(self, batch: Batch, opened: LinearHead) -> Output:
        """The score of each row, in float64 from the stored float16 as they are, so that it is the same everywhere."""
        image_ND = batch.vectors(c.CLIP_IMAGE).astype(np.float64)
        if image_ND.shape[1] != opened.width:
            raise InputError(
                f"aesthetic_score: {c.CLIP_IMAGE} has {image_ND.shape[1]} numbers, the head in {self.weights} takes "
                f"{opened.width}; take vectors of the model that it was trained on, or another head"
            )
        lengths_N = np.linalg.norm(image_ND, axis=1)
        far = np.flatnonzero(np.abs(lengths_N - 1) > _FROM_UNIT_LENGTH).tolist()
        said = "the vector has length {:.3f}; the head was trained on vectors of length 1"
        failures = {row: Failure("not_unit_length", said.format(lengths_N[row])) for row in far}
        return Output({c.AESTHETIC_SCORE.name: opened.values(image_ND).astype(np.float32)}, failures)
