"""Weights of parts, loaded into the modules that play their roles.

Every tensor of the part must be there and fit; rows of tokens that the vocabulary was given beyond the weights' own
are new: the mean of the others, and a little noise.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from schemas.errors import InputError
from training.generative.families import MODEL_TYPES, Family, family_of
from training.generative.own_towers import expressed_tower
from training.generative.sources import as_input_error, own_tower

_ROWS_OF_TOKENS = ("embed_tokens.weight", "shared.weight", "lm_head.weight")
_SIGLIP = "siglip_vision_model"


def load_encoder(model: Any, family: Family, weights: str) -> None:
    """Fill the encoder from a folder, a hub's name, or our own contrastive run. Raises InputError."""
    module = model.get_submodule(family.roles["encoder"][0])
    where = f"encoder.weights {weights}"
    own = own_tower(weights) is not None
    found = expressed_tower(weights, family.encoder_type)[1] if own else _stored_encoder(module, weights, where)
    wanted = module.state_dict()
    start = next(iter(wanted)).partition(".")[0]  # some classes hold their model in one module, some are that module
    if start == "vision_model":
        found = {f"{start}.{name.removeprefix(f'{start}.')}": tensor for name, tensor in found.items()}
    _copy(wanted, found, where)


def _stored_encoder(module: Any, weights: str, where: str) -> dict[str, Tensor]:
    from transformers import AutoConfig, SiglipVisionModel

    with as_input_error(where):
        stored = AutoConfig.from_pretrained(weights)
        if stored.model_type in MODEL_TYPES:
            whole, family = _whole(weights, stored)
            return dict(whole.get_submodule(family.roles["encoder"][0]).state_dict())
        siglip = getattr(stored, "vision_config", stored).model_type == _SIGLIP
        kind = SiglipVisionModel if siglip else type(module)
        settings = {} if siglip else {"config": module.config}
        made, told = kind.from_pretrained(weights, dtype=torch.float32, output_loading_info=True, **settings)
    if told["missing_keys"]:
        raise InputError(f"{where}: has no tensor {min(told['missing_keys'])}, which the encoder has")
    return {name.removeprefix("vision_model."): tensor for name, tensor in made.state_dict().items()}


def _whole(weights: str, config: Any) -> tuple[Any, Family]:
    """A vision-language model of which only a part is wanted."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(weights, dtype=torch.float32), family_of(config)


def load_llm(model: Any, family: Family, weights: str) -> None:
    """Fill the language model and its head from a folder or a hub's name. Raises InputError.

    Layers of cross-attention are new, with gates of 0: pictures change nothing before they are learnt from.
    """
    where = f"llm.weights {weights}"
    llm, head = family.roles["llm"][0], family.roles["head"][0]
    with as_input_error(where):
        inner, found = _stored_llm(family.answers_apart(model.config), weights)
    if head.startswith(f"{llm}."):
        _copy(model.get_submodule(llm).state_dict(), found, where)
        return
    crossed = set(getattr(model.config.get_text_config(), "cross_attention_layers", None) or ())
    if crossed:
        inner = _spread(inner, crossed, model.config.text_config.num_hidden_layers)
    wanted = model.get_submodule(llm).state_dict()
    _copy({name: tensor for name, tensor in wanted.items() if _layer(name) not in crossed}, inner, where)
    _copy({"lm_head.weight": model.get_submodule(head).weight.data}, found, where)


def _stored_llm(answers_apart: bool, weights: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors below a language model's head by their names there, and all of them by their own names."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    stored = AutoConfig.from_pretrained(weights)
    if stored.model_type in MODEL_TYPES:
        whole, family = _whole(weights, stored)
        inner = whole.get_submodule(family.roles["llm"][0]).state_dict()
        return inner, inner | {"lm_head.weight": whole.get_submodule(family.roles["head"][0]).weight.data}
    kind = AutoModelForSeq2SeqLM if answers_apart else AutoModelForCausalLM
    made = kind.from_pretrained(weights, dtype=torch.float32)
    found, start = made.state_dict(), f"{made.base_model_prefix}."
    return {name.removeprefix(start): tensor for name, tensor in found.items() if name.startswith(start)}, found


def _spread(found: Mapping[str, Tensor], crossed: set[int], layers: int) -> dict[str, Tensor]:
    """Layer i of the weights is the i-th layer that attends to text."""
    places = [i for i in range(layers) if i not in crossed]
    moved = {}
    for name, tensor in found.items():
        layer = _layer(name)
        if layer is not None:
            name = name.replace(f"layers.{layer}.", f"layers.{places[layer]}.", 1) if layer < len(places) else name
        moved[name] = tensor
    return moved


def _layer(name: str) -> int | None:
    pieces = name.split(".")
    return int(pieces[1]) if pieces[0] == "layers" else None


def _copy(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Copy what is wanted in place. Raises InputError for what is missing or has another shape."""
    for name, tensor in wanted.items():
        if name not in found:
            raise InputError(f"{where}: has no tensor {name}, which the model has as {tuple(tensor.shape)}")
        there = found[name].to(tensor.dtype)
        if there.shape != tensor.shape and not _grows(name, there, tensor):
            raise InputError(
                f"{where}: tensor {name} has the shape {tuple(there.shape)}, the model's has {tuple(tensor.shape)}"
            )
        with torch.no_grad():
            tensor[: len(there)].copy_(there) if tensor.ndim else tensor.copy_(there)
            if tensor.ndim and len(there) < len(tensor):
                tensor[len(there) :].add_(there.mean(0))


def _grows(name: str, there: Tensor, tensor: Tensor) -> bool:
    return name.endswith(_ROWS_OF_TOKENS) and there.shape[1:] == tensor.shape[1:] and len(there) < len(tensor)
