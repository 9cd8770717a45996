"""Where the tokens of a sample stand, for rows of several samples: from 0, or by M-RoPE (arXiv 2409.12191)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from training.generative.build import Built

_GIVEN = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")


def sample_positions(built: Built) -> Callable[[Mapping[str, Any]], Tensor]:
    """What gives positions [R, T] of a sample's inputs [1, T]: one row, or text's and M-RoPE's three (R = 4)."""

    def plain(inputs: Mapping[str, Any]) -> Tensor:
        return torch.arange(inputs["input_ids"].shape[1])[None]

    def mrope(inputs: Mapping[str, Any]) -> Tensor:
        if not any(grid in inputs for grid in _GIVEN[2:4]):
            return plain(inputs).expand(4, -1)
        given = {name: inputs[name] for name in _GIVEN if name in inputs}
        three_31T, _ = built.model.model.get_rope_index(**given)
        return torch.cat([plain(inputs), three_31T[:, 0]])

    return mrope if built.family.positions == "mrope" else plain
