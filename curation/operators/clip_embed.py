"""CLIP vectors of pictures and captions, by any open_clip model."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from curation.clip_model import ClipModel, LoadedClip
from curation.operator import Batch, Failure, Operator, Output, Resources, setting
from schemas import columns as c
from schemas.columns import Column, embedding


class ClipEmbed(Operator):
    """Unit vectors of picture and caption by an open_clip model: a name with its weights, or a local folder."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, gpus=0, memory_gb=4, actor=True)
    captured: ClassVar[bool] = True  # another device gives other bits

    model: str = Field("ViT-B-32", description="open_clip's name of a model, or a folder as its save_for_hf writes it")
    weights: str | None = Field(None, description="open_clip's pretrained tag, or a file; none for a folder")
    batch_size: int = Field(32, ge=1, le=8192, description="rows per pass; the last one is padded to it")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of the model's arithmetic")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where the model runs; auto takes a GPU if there is one")

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture and the caption."""
        return (c.IMAGE, c.CAPTION)

    @property
    def adds(self) -> tuple[Column, ...]:
        """Both vectors; their width is the model's."""
        width = self._source.width
        return (
            embedding(c.CLIP_IMAGE, width, "unit vector of the picture"),
            embedding(c.CLIP_TEXT, width, "unit vector of the caption"),
        )

    @property
    def _source(self) -> ClipModel:
        return ClipModel(self.model, self.weights)

    def check(self) -> None:
        """Refuse a model that does not exist, or one without weights."""
        self._source.check()

    def weights_digest(self) -> str:
        """SHA-256 of a folder's files; a published tag stands for its own."""
        return self._source.digest()

    def open(self) -> LoadedClip:
        """The model on its device. Raises RunError where it cannot be loaded."""
        return LoadedClip(self._source, self.device, self.precision)

    def run(self, batch: Batch, opened: LoadedClip) -> Output:
        """Vectors of each row, float32 `image_ND` and `text_ND`; a missing caption is an empty one."""
        captions = [caption or "" for caption in batch[c.CAPTION.name].to_pylist()]
        decoded = [batch.pixels(row) for row in range(len(batch))]
        failures = {row: found for row, found in enumerate(decoded) if isinstance(found, Failure)}
        pixels = {row: found for row, found in enumerate(decoded) if not isinstance(found, Failure)}
        good = list(pixels)
        image_ND, text_ND = np.zeros((2, len(batch), self._source.width), np.float32)
        for start in range(0, len(good), self.batch_size):
            rows = good[start : start + self.batch_size]
            image_ND[rows] = opened.images([pixels[row] for row in rows], self.batch_size)
            text_ND[rows] = opened.texts([captions[row] for row in rows], self.batch_size)
        finite_N = np.isfinite(image_ND).all(axis=1) & np.isfinite(text_ND).all(axis=1)
        for row in np.flatnonzero(~finite_N).tolist():
            failures[row] = Failure("not_finite", "the model gives no finite vector for this pair")
        return Output({c.CLIP_IMAGE: image_ND, c.CLIP_TEXT: text_ND}, failures)
