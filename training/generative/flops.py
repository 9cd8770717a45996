"""How many operations a part of a batch needs at least, for the share of the device's rate that is made use of.

Two operations for a multiplication and addition, of weights and of attention (PaLM, arXiv 2204.02311, appendix B); real
tokens alone, and logits of labelled tokens alone. What is computed twice to save memory does not count. Weights that
learn count three times, forward and both gradients; frozen ones that a gradient passes through twice; others once.

Not exact for every family: cross-attention counts per picture token, and position tables do not count.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.generative.build import Built
from training.generative.collation import IGNORED, Collated
from training.generative.parts import learning_role

_PIXELS = ("pixel_values", "pixel_values_videos")
_GRIDS = ("image_grid_thw", "video_grid_thw")


@dataclass(frozen=True)
class Flops:
    """What one token of a kind takes, forward and backward; attention per pair of tokens that may see each other."""

    patch: float
    patch_pair: float
    picture_token: float
    token: float
    token_pair: float
    label_token: float
    patch_px: int
    picture_ids: frozenset[int]

    def of(self, part: Collated) -> float:
        """Operations of a part of a batch, as it is collated."""
        inputs, labels = part.inputs, int((part.labels_BL != IGNORED).sum())
        per_picture = _patches(inputs, self.patch_px)
        shown = int(torch.isin(inputs["input_ids"], torch.tensor(sorted(self.picture_ids))).sum())
        pairs = sum(length * length for length in _lengths(inputs))
        return (
            self.patch * sum(per_picture)
            + self.patch_pair * sum(count * count for count in per_picture)
            + self.picture_token * shown
            + self.token * part.tokens
            + self.token_pair * pairs
            + self.label_token * labels
        )


def flops_of(built: Built) -> Flops:
    """What training takes with the weights that learn as they are now."""
    weights, learns = _weights(built)
    vision = getattr(built.model.config, "vision_config", None)
    text = built.model.config.get_text_config(decoder=True)
    before_connector = learns["encoder"] > 0
    before_llm = before_connector or learns["connector"] > 0 or learns["lora"] > 0
    encoder = 3 if learns["encoder"] else 1
    connector = 3 if learns["connector"] else 2 if before_connector else 1
    llm = 3 if learns["llm"] else 2 if before_llm else 1
    return Flops(
        patch=2 * weights["encoder"] * encoder,
        patch_pair=4 * _layers(vision) * _width(vision) * encoder,
        picture_token=2 * weights["connector"] * connector,
        token=2 * weights["llm"] * llm + 2 * weights["lora"] * 3,
        token_pair=4 * _layers(text) * _width(text) * llm,
        label_token=2 * weights["head"] * llm,
        patch_px=_number(vision, "patch_size") or 14,
        picture_ids=frozenset(
            value for name in ("image_token_id", "video_token_id") if (value := _number(built.model.config, name))
        ),
    )


def _weights(built: Built) -> tuple[Counter[str], Counter[str]]:
    """Weights by part, of matrices alone and without tables; and those that learn. The head is a part here."""
    weights: Counter[str] = Counter()
    learns: Counter[str] = Counter()
    tables = {id(built.model.get_input_embeddings().weight)}
    for name, parameter in built.model.named_parameters():
        role = learning_role(name, built.family, built.model.config)
        learns[role] += parameter.numel() if parameter.requires_grad else 0
        if parameter.ndim >= 2 and id(parameter) not in tables and "position_embedding" not in name:
            is_head = parameter is built.model.get_output_embeddings().weight
            weights["head" if is_head else role] += parameter.numel()
    weights["head"] = built.model.get_output_embeddings().weight.numel()  # also where it is the table of the tokens
    return weights, learns


def _patches(inputs: dict[str, Any], patch_px: int) -> list[int]:
    """How many patches each picture, tile or frame has that the encoder sees."""
    found: list[int] = []
    for pixels, grid in zip(_PIXELS, _GRIDS, strict=True):
        if grid in inputs:
            found += [rows * columns for times, rows, columns in inputs[grid].tolist() for _ in range(times)]
        elif pixels in inputs and inputs[pixels].ndim > 3:
            *tiles, _, height_px, width_px = inputs[pixels].shape
            found += [(height_px // patch_px) * (width_px // patch_px)] * math.prod(tiles)
    return found


def _lengths(inputs: dict[str, Tensor]) -> list[int]:
    """Tokens of each sample, padded in a row of its own or packed with others; what is left of a row is one too."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum(1).tolist()
    positions = inputs["position_ids"]
    rows_BL = positions if positions.ndim == 2 else positions[0]
    begins = torch.nonzero(rows_BL.flatten() == 0).flatten()
    ends = torch.cat([begins[1:], begins.new_tensor([rows_BL.numel()])])
    return (ends - begins).tolist()


def _layers(config: Any) -> int:
    return _number(config, "num_hidden_layers") or _number(config, "depth")


def _width(config: Any) -> int:
    return _number(config, "embed_dim") or _number(config, "hidden_size")


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0
