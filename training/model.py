"""Contrastive models by open_clip: built from a name or a JSON, saved so that open_clip's `local-dir:` loads them.

Shapes: B pictures or captions, C channels, H and W the model's side in pixels, T tokens, D numbers per embedding.
"""

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
from training.attention import with_quick_attention
from training.lengths import any_length
from training.model_config import model_config

WEIGHTS, CONFIG, TEXT_TOWER = "open_clip_model.safetensors", "open_clip_config.json", "text_tower"
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
        return functional.normalize(self.network.encode_image(self.normalised(pixels_BCHW)).float(), dim=-1)

    def normalised(self, pixels_BCHW: Tensor) -> Tensor:
        """floats_BCHW of uint8 pixels, on the model's device: what the picture tower takes."""
        return (pixels_BCHW.to(self.device).float() - self._per_channel("mean")) / self._per_channel("std")

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
    with _as_input_error(f"model {spec.model} ({spec.pretrained or 'new weights'})"):
        if spec.pretrained is None or from_folder:
            network = _built(asked, device, as_declared=not from_folder)
        else:
            quick = bool(asked["model_cfg"].get("quick_gelu"))
            network = open_clip.create_model(
                spec.model, pretrained=spec.pretrained, device=device, force_quick_gelu=quick, **start
            )
        if from_folder:
            _load(network, Path(str(spec.pretrained)))
        return _model(network, asked, _tokenizer(spec.model, asked))


def load_model(folder: Path, device: str) -> Model:
    """A model from its folder, ready for scoring. Raises InputError where there is none that can be loaded."""
    import open_clip

    # New weights, which the saved ones replace, are drawn at random: nobody else's numbers shall change by that.
    with _as_input_error(f"model {folder}"), torch.random.fork_rng(devices=[]):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network = _built(config, device, text_tower=folder / TEXT_TOWER)
        _load(network, folder)
        return _model(network.eval(), config, open_clip.get_tokenizer(f"local-dir:{folder}"))


def save_model(model: Model, folder: Path) -> None:
    """Write weights and configuration; `open_clip.create_model('local-dir:FOLDER')` reads them without network."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.network.state_dict().items()}
    _replaced(folder / WEIGHTS, lambda path: save_file(tensors, path))
    if hasattr(model.tokenize, "save_pretrained"):  # one of Hugging Face; open_clip brings its own
        model.tokenize.save_pretrained(folder)
    if "hf_model_name" in model.config["model_cfg"]["text_cfg"]:  # so that it is built where that name is unknown
        model.network.text.config.save_pretrained(folder / TEXT_TOWER)
    _replaced(
        folder / CONFIG, lambda path: path.write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")
    )


def _model(network: Any, asked: Mapping[str, Any], tokenizer: Any) -> Model:
    network.visual.to(memory_format=torch.channels_last)  # a quarter quicker; weights are saved the same
    any_length(network)
    with_quick_attention(network)
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


def _built(asked: Mapping[str, Any], device: str, *, as_declared: bool = False, text_tower: Path | None = None) -> Any:
    """A network of new weights; `as_declared` fetches a tower's own where the configuration says that it has some.

    A timm tower is set to the side that is asked for, which open_clip leaves undone.
    """
    import open_clip

    config = json.loads(json.dumps(dict(asked)))
    if text_tower is not None and text_tower.is_dir():
        config["model_cfg"]["text_cfg"]["hf_model_name"] = str(text_tower)
    with tempfile.TemporaryDirectory() as folder:  # with the configuration alone: what open_clip reads one from
        Path(folder, CONFIG).write_text(json.dumps(config), encoding="utf-8")
        side = config["model_cfg"]["vision_cfg"].get("image_size", 224)
        timm = {"force_image_size": side} if "timm_model_name" in config["model_cfg"]["vision_cfg"] else {}
        network = open_clip.create_model(
            f"local-dir:{folder}",
            load_weights=False,
            device=device,
            pretrained_image=as_declared and bool(config["model_cfg"]["vision_cfg"].get("timm_model_pretrained")),
            pretrained_text=as_declared and bool(config["model_cfg"]["text_cfg"].get("hf_model_pretrained")),
            **timm,
        )
    return network


def _tokenizer(name: str, asked: Mapping[str, Any]) -> Any:
    """The tokenizer that a configuration names; one of Hugging Face by its name or folder."""
    import open_clip

    text = asked["model_cfg"]["text_cfg"]
    if not name.endswith(".json"):
        return open_clip.get_tokenizer(name)
    given = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if "hf_tokenizer_name" not in text:
        return open_clip.tokenizer.SimpleTokenizer(**given)
    return open_clip.tokenizer.HFTokenizer(
        text["hf_tokenizer_name"], tokenizer_mode=text.get("tokenizer_mode"), **given
    )


def _load(network: Any, folder: Path) -> None:
    """Weights of a folder; position embeddings are resized where the sides or contexts differ. Raises InputError."""
    import open_clip
    from safetensors.torch import load_file

    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"model {folder}: the folder has no {missing[0]}")
    weights = load_file(folder / WEIGHTS)
    if network.logit_bias is not None:  # from a model trained with InfoNCE, which has no bias
        weights.setdefault("logit_bias", network.logit_bias.detach())
    open_clip.model.resize_pos_embed(weights, network)
    open_clip.model.resize_text_pos_embed(weights, network)
    _require_shapes(network, weights, folder)
    network.load_state_dict(weights)
    pictures = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("preprocess_cfg", {})
    network.visual.preprocess_cfg.update({name: pictures[name] for name in ("mean", "std") if name in pictures})


def _require_shapes(network: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Name the first tensor that does not fit."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, shape in wanted.items():
        if name not in weights:
            raise InputError(f"weights of {folder}: have no tensor {name}, which the model has as {shape}")
        if tuple(weights[name].shape) != shape:
            there = tuple(weights[name].shape)
            raise InputError(f"weights of {folder}: tensor {name} has the shape {there}, the model's has {shape}")
    strange = [name for name in weights if name not in wanted]
    if strange:
        raise InputError(f"weights of {folder}: have the tensor {strange[0]}, which the model has not")


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
