"""An open_clip model on its device: pictures and captions made ready for it, and passes of one fixed shape.

Shapes: B rows of one pass, N rows given, C channels, H and W its side in pixels, D numbers per vector, T tokens.
"""

import contextlib
import json
import logging
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation.models.clip_model import CONFIG, TEXT_TOWER, ClipModel
from schemas.errors import RunError
from schemas.picture_transform import square

_HUB_TIMEOUT_S = 10
_MOST_CAPTION_CHARS = 4_000  # more than 77 tokens take; a tokenizer's time grows with the square of a word
_AS_SQUARE = {"resize_mode": "shortest", "interpolation": "bicubic"}

Vectors = Callable[[], np.ndarray]
"""Waits for a pass and gives its unit vectors, float32 ND."""


class LoadedClip:
    """A model on its device, with its own transform and tokenizer. Raises RunError where it cannot be loaded."""

    def __init__(self, source: ClipModel, device: str, precision: str, *, compiled: bool = False) -> None:
        import torch

        self._torch = torch
        self._device = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        self._half = precision == "bf16"
        try:
            with _quietly(source):
                self._load(source)
        except Exception as error:
            named = f"{source.model} ({source.weights})" if source.weights else source.model
            raise RunError(
                f"the model {named} cannot be loaded on {self._device}: {type(error).__name__}: {error}; "
                "without a network, give a folder as open_clip's save_for_hf writes it"
            ) from error
        self._encode_image, self._encode_text = self._model.encode_image, self._model.encode_text
        if compiled:
            self._encode_image = torch.compile(self._encode_image, dynamic=False)
            self._encode_text = torch.compile(self._encode_text, dynamic=False)
        self._copies = torch.cuda.Stream() if self.on_gpu else None  # type: ignore[no-untyped-call]

    @property
    def on_gpu(self) -> bool:
        """Whether passes run beside this process, which can make the next ones ready meanwhile."""
        return self._device.startswith("cuda")

    def _load(self, source: ClipModel) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        name = f"local-dir:{source.folder}" if source.folder else source.model.replace("/", "-")
        side_px = source.timm_side_px
        with _loadable(source.folder) as folder:
            self._model = open_clip.create_model(
                f"local-dir:{folder}" if folder else name,
                pretrained=source.weights,
                device=self._device,
                load_weights=side_px is None,
                require_pretrained=side_px is None,
                force_image_size=side_px,
                force_quick_gelu=quick_gelu(name, source.weights),
            ).eval()
        if side_px is not None:  # weights of that side, which open_clip would load into a tower of another
            open_clip.load_checkpoint(self._model, str(source.weights_file))
        self._tokenizer = open_clip.get_tokenizer(name)
        cfg = PreprocessCfg(**self._model.visual.preprocess_cfg)
        *self._to_square, _to_floats, normalise = image_transform_v2(cfg, is_train=False).transforms
        sides = {cfg.size} if isinstance(cfg.size, int) else set(cfg.size)
        plain = len(sides) == 1 and (cfg.resize_mode, cfg.interpolation) == tuple(_AS_SQUARE.values())
        self._side_px = int(sides.pop()) if plain else None
        self._mean, self._std = (
            self._torch.tensor(values, device=self._device).view(-1, 1, 1) for values in (normalise.mean, normalise.std)
        )

    def seen(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """What the model sees of a picture, uint8 pixels_HWC: resized and cut as its own configuration says."""
        if self._side_px is not None:
            return square(pixels_HWC, self._side_px)
        from PIL import Image

        picture = Image.fromarray(pixels_HWC)
        for change in self._to_square:
            picture = change(picture)
        return np.asarray(picture)

    def pictures(self, seen: Sequence[np.ndarray], batch_size: int) -> Vectors:
        """Begin a pass of exactly `batch_size` over up to that many pictures as `seen` gives them."""
        pixels_NCHW = np.stack(seen).transpose(0, 3, 1, 2)
        return self._begin(self._encode_image, self._torch.from_numpy(pixels_NCHW).contiguous(), batch_size)

    def captions(self, captions: Sequence[str], batch_size: int) -> Vectors:
        """Begin a pass of exactly `batch_size` over up to that many captions."""
        tokens_NT = self._tokenizer([caption[:_MOST_CAPTION_CHARS] for caption in captions])
        return self._begin(self._encode_text, tokens_NT, batch_size)

    def _begin(self, encode: Any, inputs: Any, batch_size: int) -> Vectors:
        torch, count = self._torch, len(inputs)
        # Another batch shape would change bits, so the last batch is padded.
        padding = torch.zeros((batch_size - count, *inputs.shape[1:]), dtype=inputs.dtype)
        inputs = self._on_device(torch.cat([inputs, padding]))
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            if inputs.dtype == torch.uint8:  # as torchvision's ToTensor and Normalize do it, bit for bit
                inputs = inputs.float().div_(255).sub_(self._mean).div_(self._std)
            vectors_BD = encode(inputs)
        vectors_ND = torch.nn.functional.normalize(vectors_BD.float(), dim=-1)[:count]
        if not self.on_gpu:
            return lambda: vectors_ND.numpy()
        # The way back is begun at once: asked for later, it would stand in line behind the next pass.
        host_ND = torch.empty(vectors_ND.shape, pin_memory=True).copy_(vectors_ND, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return lambda: (done.synchronize(), host_ND.numpy())[1]

    def _on_device(self, inputs: Any) -> Any:
        if self._copies is None:
            return inputs
        torch = self._torch
        with torch.cuda.stream(self._copies):  # beside the pass that runs
            there = inputs.pin_memory().to(self._device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._copies)
        there.record_stream(torch.cuda.current_stream())
        return there


@contextlib.contextmanager
def _loadable(folder: Path | None) -> Iterator[Path | None]:
    """The folder as open_clip loads it: a text tower of Hugging Face that lies in it needs no hub."""
    if folder is None or not (folder / TEXT_TOWER).is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory() as beside:
        for file in folder.iterdir():
            Path(beside, file.name).symlink_to(file.resolve())
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder / TEXT_TOWER)
        Path(beside, CONFIG).unlink()
        Path(beside, CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield Path(beside)


@contextlib.contextmanager
def _quietly(source: ClipModel) -> Iterator[None]:
    """Load without the log lines of open_clip and the Hub, whose error is raised anyway; without a network at once.

    Where the Hub does not answer, it is taken for offline: what is cached is found, and nothing is tried for a minute.
    """
    from huggingface_hub import constants

    root, before, offline = logging.getLogger(), logging.root.manager.disable, constants.HF_HUB_OFFLINE
    handlers = root.handlers[:]  # logging.warning() adds one where there is none
    logging.disable(logging.ERROR)
    wants_hub = source.folder is None and not Path(source.weights or "").is_file()
    constants.HF_HUB_OFFLINE = offline or (wants_hub and not _answers(constants.ENDPOINT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(before)
        root.handlers[:] = handlers


def _answers(url: str) -> bool:
    """Whether anybody answers there, by way of a proxy where one is set."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the Hub's own client may know other certificates
    except OSError:
        return False
    return True


def quick_gelu(model: str, weights: str | None) -> bool:
    """Whether published weights were trained with QuickGELU; open_clip only warns where the name does not say it."""
    import open_clip

    return bool(weights and (open_clip.get_pretrained_cfg(model, weights) or {}).get("quick_gelu"))
