"""Contrastive models by open_clip: built from a name or a JSON, saved so that open_clip's `local-dir:` loads them.

Shapes: B pictures or captions, C channels, H and W the model's side in pixels, T tokens, D numbers per embedding.
"""

import difflib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from schemas.errors import InputError
from schemas.training import TrainingSpec

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
# Where SigLIP's temperature and bias begin (arXiv 2303.15343, section 3.2): most pairs are negatives.
_SIGMOID_START = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}


@dataclass(frozen=True)
class Model:
    """A network, its tokenizer (captions → tokens_BT), its side in pixels, and its configuration for open_clip."""

    network: Any
    tokenize: Callable[[list[str]], Tensor]
    side_px: int
    config: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.network.parameters()).device

    def embed_pictures(self, pixels_BCHW: Tensor) -> Tensor:
        """image_BD of uint8 pixels: float32, of unit length."""
        floats_BCHW = (pixels_BCHW.to(self.device).float() - self._per_channel("mean")) / self._per_channel("std")
        return functional.normalize(self.network.encode_image(floats_BCHW).float(), dim=-1)

    def embed_captions(self, tokens_BT: Tensor) -> Tensor:
        """text_BD of tokens: float32, of unit length."""
        return functional.normalize(self.network.encode_text(tokens_BT.to(self.device)).float(), dim=-1)

    def _per_channel(self, name: str) -> Tensor:
        return torch.tensor(self.config["preprocess_cfg"][name], device=self.device).view(1, -1, 1, 1) * 255


def build_model(spec: TrainingSpec, device: str) -> Model:
    """The model that the spec names, with new or pretrained weights. Raises InputError."""
    import open_clip

    asked = model_config(spec.model)
    tag = open_clip.get_pretrained_cfg(spec.model, spec.pretrained) if spec.pretrained else None
    if tag and tag.get("quick_gelu"):  # such weights were trained with another activation than the name says
        asked["model_cfg"]["quick_gelu"] = True
    if spec.loss == "siglip":
        asked = {**asked, "model_cfg": {**_SIGMOID_START, **asked["model_cfg"]}}
    start = {name: asked["model_cfg"][name] for name in _SIGMOID_START if name in asked["model_cfg"]}
    from_folder = spec.pretrained is not None and Path(spec.pretrained).is_dir()
    with _as_input_error(f"model {spec.model} ({spec.pretrained or 'new weights'})"), _folder_with(asked) as folder:
        if spec.pretrained is None or from_folder:
            network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, device=device)
        else:
            quick = bool(asked["model_cfg"].get("quick_gelu"))
            network = open_clip.create_model(
                spec.model, pretrained=spec.pretrained, device=device, force_quick_gelu=quick, **start
            )
        network.visual.to(memory_format=torch.channels_last)  # a quarter quicker; weights are saved the same
        if from_folder:
            _load(network, Path(str(spec.pretrained)))
        named = not spec.model.endswith(".json")
        return _model(network, asked, open_clip.get_tokenizer(spec.model if named else f"local-dir:{folder}"))


def load_model(folder: Path, device: str) -> Model:
    """A model from its folder, ready for scoring. Raises InputError where there is none that can be loaded."""
    import open_clip

    with _as_input_error(f"model {folder}"):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network = open_clip.create_model(f"local-dir:{folder}", device=device, require_pretrained=True)
        return _model(network.eval(), config, open_clip.get_tokenizer(f"local-dir:{folder}"))


def save_model(model: Model, folder: Path) -> None:
    """Write weights and configuration; `open_clip.create_model('local-dir:FOLDER')` reads them without network."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.network.state_dict().items()}
    _replaced(folder / WEIGHTS, lambda path: save_file(tensors, path))
    if hasattr(model.tokenize, "save_pretrained"):  # one of Hugging Face; open_clip brings its own
        model.tokenize.save_pretrained(folder)
    _replaced(
        folder / CONFIG, lambda path: path.write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    )


def model_config(name: str) -> dict[str, Any]:
    """{model_cfg, preprocess_cfg} of an open_clip name or of a JSON file that holds them, or model_cfg alone."""
    if not name.endswith(".json"):
        import open_clip

        known = open_clip.get_model_config(name)
        if known is not None:
            return _contrastive(name, {"model_cfg": known})
        near = difflib.get_close_matches(name, open_clip.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "name one of open_clip's, or a path that ends in .json"
        raise InputError(f"model {name!r}: open_clip has none of that name; {hint}")
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model {name}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"model {name}: cannot be read as JSON: {error}") from error
    return _contrastive(name, found if isinstance(found, dict) else {})


def _contrastive(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The configuration in its parts. Raises InputError where it is none of a model with two towers alone."""
    inner = found.get("model_cfg", found)
    missing = [part for part in ("embed_dim", "vision_cfg", "text_cfg") if part not in inner]
    if missing:
        raise InputError(f"model {name}: is no configuration of an open_clip model; it lacks {', '.join(missing)}")
    if "multimodal_cfg" in inner:
        raise InputError(f"model {name}: is a CoCa, whose captioning loss is not trained here; take one without")
    return {"model_cfg": inner, "preprocess_cfg": found.get("preprocess_cfg", {})}


def _model(network: Any, asked: Mapping[str, Any], tokenizer: Any) -> Model:
    size, pictures = network.visual.image_size, network.visual.preprocess_cfg
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise InputError(f"the model sees pictures of {size} pixels; only squares are trained here")
    # What schemas/picture_transform.py does, in open_clip's words; a model made for another transform is trained so.
    transform = {name: list(pictures[name]) for name in ("mean", "std")}
    config = {
        "model_cfg": dict(asked["model_cfg"]),
        "preprocess_cfg": {**transform, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    return Model(network, tokenizer, int(sides.pop()), config)


def _load(network: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"pretrained {folder}: the folder has no {missing[0]}")
    weights = load_file(folder / WEIGHTS)
    if network.logit_bias is not None:  # from a model trained with InfoNCE, which has no bias
        weights.setdefault("logit_bias", network.logit_bias.detach())
    network.load_state_dict(weights)
    pictures = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("preprocess_cfg", {})
    network.visual.preprocess_cfg.update({name: pictures[name] for name in ("mean", "std") if name in pictures})


@contextmanager
def _folder_with(config: Mapping[str, Any]) -> Iterator[str]:
    """A folder with that configuration alone: what open_clip reads a model of no name from."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield folder


@contextmanager
def _as_input_error(what: str) -> Iterator[None]:
    """A sentence for whatever open_clip raises; its warning that new weights are new is no news."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # open_clip raises whatever the libraries below it raise
        raise InputError(f"{what}: cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        logging.disable(before)


def _replaced(path: Path, write: Callable[[Path], object]) -> None:
    fresh = path.with_name(f".{path.name}.new")
    write(fresh)
    fresh.replace(path)
