"""CLIP vectors of pictures and captions, by any open_clip model."""

import difflib
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from curation.operator import Batch, Failure, Operator, Output, Resources, setting
from schemas import columns as c
from schemas.columns import Column, embedding
from schemas.errors import InputError, RunError
from schemas.picture_transform import square

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONFIG = "open_clip_config.json"


class ClipEmbed(Operator):
    """Unit vectors of picture and caption by an open_clip model: a name and pretrained weights, or a local folder."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, gpus=0, memory_gb=4, actor=True)
    captured: ClassVar[bool] = True  # another device gives other bits

    model: str = Field(description="an open_clip model name, or a folder as open_clip's save_for_hf writes it")
    weights: str | None = Field(None, description="open_clip's pretrained tag; none for a folder")
    batch_size: int = Field(32, ge=1, le=8192, description="fixed batch shape; the last batch is padded")
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where the model runs; auto takes a GPU if there is one")

    @property
    def folder(self) -> Path | None:
        """The model's folder where it is a local one."""
        return Path(self.model) if (Path(self.model) / _CONFIG).is_file() else None

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture and the caption."""
        return (c.IMAGE, c.CAPTION)

    @property
    def adds(self) -> tuple[Column, ...]:
        """Both vectors; their width is the model's."""
        width = int(self._config()["embed_dim"])
        return (
            embedding(c.CLIP_IMAGE, width, "unit vector of the picture"),
            embedding(c.CLIP_TEXT, width, "unit vector of the caption"),
        )

    def check(self) -> None:
        """Refuse a model that does not exist, or one without weights."""
        self._config()
        if self.folder is not None and self._weights_file() is None:
            raise InputError(
                f"model {self.model}: the folder has no weights; it must hold one of {', '.join(_WEIGHTS)}"
            )
        if self.folder is None and not self.weights:
            raise InputError(f"model {self.model}: name its weights too, as in `weights: openai`")

    def weights_digest(self) -> str:
        """SHA-256 of a folder's weights and configuration; a published tag stands for its own."""
        file = self._weights_file()
        if self.folder is None or file is None:
            return f"{self.model}/{self.weights}"
        return hashlib.sha256(
            _file_digest(file, file.stat().st_size).encode() + (self.folder / _CONFIG).read_bytes()
        ).hexdigest()

    def open(self) -> Any:
        """The model on its device. Raises RunError where it cannot be loaded."""
        return _Model(self)

    def run(self, batch: Batch, opened: Any) -> Output:
        """Vectors of a batch of rows, computed in padded batches of one shape."""
        failures: dict[int, Failure] = {}
        side_px = opened.side_px
        pixels_NHWC = np.zeros((len(batch), side_px, side_px, 3), np.uint8)
        for row in range(len(batch)):
            pixels = batch.pixels(row)
            if isinstance(pixels, Failure):
                failures[row] = pixels
            else:
                pixels_NHWC[row] = square(pixels, side_px)
        captions = [caption or "" for caption in batch[c.CAPTION.name].to_pylist()]
        image_ND, text_ND = opened.embed(pixels_NHWC, captions, self.batch_size)
        return Output({c.CLIP_IMAGE: image_ND, c.CLIP_TEXT: text_ND}, failures)

    def _config(self) -> dict[str, Any]:
        folder = self.folder
        if folder is not None:
            found: dict[str, Any] = json.loads((folder / _CONFIG).read_text())["model_cfg"]
            return found
        known = model_configs()
        if self.model not in known:
            near = difflib.get_close_matches(self.model, known, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "`python -m open_clip.pretrained` lists them"
            raise InputError(f"model {self.model!r}: is no folder with {_CONFIG} and no open_clip model; {hint}")
        return dict(json.loads(known[self.model].read_text()))

    def _weights_file(self) -> Path | None:
        return next((self.folder / n for n in _WEIGHTS if (self.folder / n).is_file()), None) if self.folder else None


@cache
def model_configs() -> dict[str, Path]:
    """open_clip's model names and configuration files, found without importing it (that takes six seconds)."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


@cache
def _file_digest(path: Path, _size: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Model:
    """A loaded model with its transform and its tokenizer."""

    def __init__(self, asked: ClipEmbed) -> None:
        import open_clip
        import torch

        device = asked.device if asked.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        name = f"local-dir:{asked.folder}" if asked.folder else asked.model
        try:
            model = open_clip.create_model(name, pretrained=asked.weights, device=device)
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:
            raise RunError(
                f"clip_embed: the model {asked.model} ({asked.weights or 'local'}) cannot be loaded on {device}: "
                f"{type(error).__name__}: {error}"
            ) from error
        self._torch = torch
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._device = device
        self._dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
        size = model.visual.image_size
        self.side_px = int(size[0] if isinstance(size, (tuple, list)) else size)
        self._mean = torch.tensor(model.visual.preprocess_cfg["mean"]).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(model.visual.preprocess_cfg["std"]).view(1, 3, 1, 1) * 255

    def embed(self, pixels_NHWC: np.ndarray, captions: list[str], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors image_ND and text_ND, float32. Every forward pass has the same shape: another changes bits."""
        torch = self._torch
        tokens_NT = self._tokenizer(captions)
        images, texts = [], []
        for start in range(0, len(captions), batch_size):
            count = min(batch_size, len(captions) - start)
            pixels = torch.from_numpy(pixels_NHWC[start : start + count]).permute(0, 3, 1, 2).float()
            pixels_BCHW = _padded(torch, (pixels - self._mean) / self._std, batch_size).to(self._device, self._dtype)
            tokens_BT = _padded(torch, tokens_NT[start : start + count], batch_size).to(self._device)
            enabled = self._dtype != torch.float32
            with torch.inference_mode(), torch.autocast(self._device, self._dtype, enabled=enabled):
                image_BD = self._model.encode_image(pixels_BCHW.float(), normalize=True)
                text_BD = self._model.encode_text(tokens_BT, normalize=True)
            images.append(image_BD[:count].float().cpu().numpy())
            texts.append(text_BD[:count].float().cpu().numpy())
        return np.concatenate(images), np.concatenate(texts)


def _padded(torch: Any, values: Any, rows: int) -> Any:
    """The tensor with rows of zeros after it, to `rows`."""
    missing = rows - len(values)
    return values if not missing else torch.cat([values, torch.zeros((missing, *values.shape[1:]), dtype=values.dtype)])
