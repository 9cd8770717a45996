"""An open_clip model: what can be known of it without importing open_clip (six seconds), and the loaded model itself.

Shapes: B rows of one forward pass, N rows given, D numbers per vector, T tokens.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import json
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import InputError, RunError

CONFIG = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pth")
_BESIDE_WEIGHTS = (".json", ".txt", ".model")  # configuration and tokenizer
_HUB_TIMEOUT_S = 10
_MOST_CAPTION_CHARS = (
    4_000  # more than a context of 77 tokens takes; a tokenizer's time grows with the square of a word
)


@dataclass(frozen=True)
class ClipModel:
    """Which model: a folder as open_clip's save_for_hf writes it, or open_clip's name with a tag or file of weights."""

    model: str
    weights: str | None

    @property
    def folder(self) -> Path | None:
        """The model's folder where it is a local one."""
        return Path(self.model) if (Path(self.model) / CONFIG).is_file() else None

    @property
    def width(self) -> int:
        """Numbers per vector. Raises InputError where there is no such model."""
        found = self._config().get("embed_dim")
        if not isinstance(found, int):
            raise InputError(f"model {self.model}: its configuration has no embed_dim; is it an open_clip model?")
        return found

    def check(self) -> None:
        """Raise InputError for a model that does not exist, or one without weights."""
        assert self.width
        if self.folder is None:
            if not self.weights:
                raise InputError(f"model {self.model}: name its weights too, as in `weights: openai`")
        elif self.weights:
            raise InputError(f"model {self.model}: a folder brings its own weights; leave out `weights`")
        elif not self._files(_WEIGHTS):
            raise InputError(f"model {self.model}: the folder holds no weights ({', '.join(_WEIGHTS)})")

    def digest(self) -> str:
        """SHA-256 of a folder's weights, configuration and tokenizer; a published tag stands for its own."""
        if self.folder is not None:
            files = [(file.name, sha256_of(file)) for file in self._files(_WEIGHTS + _BESIDE_WEIGHTS)]
            return hashlib.sha256(json.dumps(files).encode()).hexdigest()
        file = Path(self.weights or "")
        return f"{self.model}/{sha256_of(file) if file.is_file() else self.weights}"

    def _files(self, suffixes: Sequence[str]) -> list[Path]:
        assert self.folder is not None
        return sorted(path for path in self.folder.iterdir() if path.suffix in suffixes and path.is_file())

    def _config(self) -> dict[str, Any]:
        folder = self.folder
        if folder is not None:
            try:
                return dict(json.loads((folder / CONFIG).read_text("utf-8"))["model_cfg"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"model {self.model}: {CONFIG} is not as save_for_hf writes it: {error!r}") from error
        known = _published()
        name = self.model.replace("/", "-")  # ViT-B/32 is another spelling, which open_clip takes too
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
            raise InputError(f"model {self.model!r}: is no folder with {CONFIG} and no open_clip model; {hint}")
        return dict(json.loads(known[name].read_text("utf-8")))


class LoadedClip:
    """A model on its device, with its own transform and tokenizer. Raises RunError where it cannot be loaded."""

    def __init__(self, source: ClipModel, device: str, precision: str) -> None:
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

    def _load(self, source: ClipModel) -> None:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        name = f"local-dir:{source.folder}" if source.folder else source.model.replace("/", "-")
        self._model = open_clip.create_model(
            name,
            pretrained=source.weights,
            device=self._device,
            require_pretrained=True,
            force_quick_gelu=quick_gelu(name, source.weights),
        ).eval()
        self._tokenizer = open_clip.get_tokenizer(name)
        cfg = PreprocessCfg(**self._model.visual.preprocess_cfg)
        self._transform = image_transform_v2(cfg, is_train=False)

    def images(self, pixels: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """Unit vectors ND of up to `batch_size` pictures (uint8 HWC), in a pass of exactly that many."""
        from PIL import Image

        pixels_NCHW = self._torch.stack([self._transform(Image.fromarray(pixels_HWC)) for pixels_HWC in pixels])
        return self._forward(self._model.encode_image, pixels_NCHW, batch_size)

    def texts(self, captions: Sequence[str], batch_size: int) -> np.ndarray:
        """Unit vectors ND of up to `batch_size` captions, in a pass of exactly that many."""
        tokens_NT = self._tokenizer([caption[:_MOST_CAPTION_CHARS] for caption in captions])
        return self._forward(self._model.encode_text, tokens_NT, batch_size)

    def _forward(self, encode: Any, inputs: Any, batch_size: int) -> np.ndarray:
        torch, count = self._torch, len(inputs)
        # Another batch shape would change bits, so the last batch is padded.
        padding = torch.zeros((batch_size - count, *inputs.shape[1:]), dtype=inputs.dtype)
        inputs = torch.cat([inputs, padding]).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            vectors_BD = encode(inputs)
        vectors_BD = torch.nn.functional.normalize(vectors_BD.float(), dim=-1)
        found: np.ndarray = vectors_BD[:count].cpu().numpy()
        return found


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


@cache
def _published() -> dict[str, Path]:
    """open_clip's model names and their configurations, found without importing it."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / "model_configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file of weights; computed again only where its length or time changed."""
    path = Path(path)
    stat = path.stat()
    return _sha256(path.absolute(), stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """The digest of a file that has this length and was last changed then; weights are large."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
