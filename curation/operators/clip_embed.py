"""CLIP vectors of pictures and captions, by any open_clip model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from curation.models.clip_model import ClipModel
from curation.models.clip_passes import embedded
from curation.models.loaded_clip import LoadedClip
from curation.operator import Batch, Failure, Operator, Output, Resources, setting
from schemas import columns as c
from schemas.columns import Column, embedding

Embeddings = tuple[np.ndarray, Output]
_AHEAD = 2  # batches that are decoded while a GPU works on those before


class ClipEmbed(Operator):
    """Unit vectors of picture and caption by an open_clip model: a name with its weights, or a local folder."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, gpus=0, memory_gb=4, actor=True)
    captured: ClassVar[bool] = True  # another device gives other bits

    # Settings, because `weights_digest` stands for them: a folder is the same model wherever it lies.
    model: str = setting("ViT-B-32", "open_clip's name of a model, or a folder as its save_for_hf writes it")
    weights: str | None = setting(None, "open_clip's pretrained tag, or a file; none for a folder")
    batch_size: int = Field(32, ge=1, le=8192, description="rows per pass; the last one is padded to it")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of the model's arithmetic")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where the model runs; auto takes a GPU if there is one")
    workers: int = setting(4, "threads that decode pictures while the model runs", ge=1, le=256)
    compile: bool = setting(
        False, "compile both towers (torch.compile): a minute at the start, a few per cent after it"
    )

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
        """SHA-256 of a folder's files; a published name and tag stand for their own."""
        return self._source.digest()

    def open(self) -> LoadedClip:
        """The model on its device. Raises RunError where it cannot be loaded."""
        return LoadedClip(self._source, self.device, self.precision, compiled=self.compile)

    def run(self, batch: Batch, opened: LoadedClip) -> Output:
        """Vectors of each row, float32 `image_ND` and `text_ND`; a missing caption is an empty one."""
        [(_, output)] = self.stream(iter([(np.arange(len(batch)), batch)]), opened)
        return output

    def stream(self, batches: Iterator[tuple[np.ndarray, Batch]], opened: LoadedClip) -> Iterator[Embeddings]:
        """The same for many batches: the next ones are decoded while the model runs."""
        ahead = _AHEAD if opened.on_gpu else 0  # on a CPU the model itself takes all cores
        with ThreadPoolExecutor(self.workers, "decode") as decoders:
            for one in embedded(batches, opened, self._source.width, self.batch_size, decoders, ahead):
                finite_N = np.isfinite(one.image_ND).all(axis=1) & np.isfinite(one.text_ND).all(axis=1)
                for row in np.flatnonzero(~finite_N).tolist():
                    one.failures[row] = Failure("not_finite", "the model gives no finite vector for this pair")
                yield one.rows, Output({c.CLIP_IMAGE: one.image_ND, c.CLIP_TEXT: one.text_ND}, one.failures)
