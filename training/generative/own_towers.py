"""The picture tower of our own contrastive training, as transformers' CLIPVisionModel or SiglipVisionModel."""

from typing import Any

from torch import Tensor

from schemas.errors import InputError
from training.generative.sources import own_tower


def expressed_tower(weights: str) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights (by the names of its vision model) of the tower in a run's or a model's folder.

    Raises InputError where transformers has no such tower.
    """
    from training.export import expressed
    from training.model import load_model

    folder = own_tower(weights)
    assert folder is not None
    model = load_model(folder, "cpu")
    try:
        config, tensors = expressed(model)
    except InputError as error:
        said = str(error).removeprefix("export: ").removesuffix("; open_clip's format keeps it")
        raise InputError(f"encoder.weights {weights}: {said}; train it as a ViT to give it a language model") from error
    start = "vision_model."
    vision = {name.removeprefix(start): tensor.detach() for name, tensor in tensors.items() if name.startswith(start)}
    return config.vision_config, vision
