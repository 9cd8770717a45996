"""The picture tower of our own contrastive training, as transformers has it: CLIP's, SigLIP's, or one of timm's."""

from typing import Any

from torch import Tensor

from schemas.errors import InputError
from training.generative.sources import own_tower

TIMM = "timm_wrapper"


def expressed_tower(weights: str, wanted: str | None) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights, by the names below the encoder's, of the tower in a run's or a model's folder.

    `wanted` is the model type that the family takes. Raises InputError where transformers has no such tower.
    """
    from training.export import expressed
    from training.model import load_model

    folder = own_tower(weights)
    assert folder is not None
    model = load_model(folder, "cpu")
    if wanted == TIMM:
        return _timm_tower(model, weights)
    try:
        config, tensors = expressed(model)
    except InputError as error:
        said = str(error).removeprefix("export: ").removesuffix("; open_clip's format keeps it")
        timm = "timm_model_name" in model.config["model_cfg"]["vision_cfg"]
        hint = "the family perception_lm takes it" if timm else "train it as a ViT to give it a language model"
        raise InputError(f"encoder.weights {weights}: {said}; {hint}") from error
    start = "vision_model."
    return config.vision_config, {
        name.removeprefix(start): tensor.detach() for name, tensor in tensors.items() if name.startswith(start)
    }


def _timm_tower(model: Any, weights: str) -> tuple[Any, dict[str, Tensor]]:
    from transformers import AutoConfig

    name = model.config["model_cfg"]["vision_cfg"].get("timm_model_name")
    if name is None:
        raise InputError(f"encoder.weights {weights}: is no tower of timm; llava and its like take CLIP's own ViT")
    config = AutoConfig.for_model(TIMM, architecture=name, model_args={"img_size": model.side_px})
    trunk = model.network.visual.trunk.state_dict()
    return config, {f"timm_model.{key}": tensor for key, tensor in trunk.items()}
