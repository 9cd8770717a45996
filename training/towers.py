"""Two towers as one module, so that DDP, FSDP2 and torch.compile take hold of what the loss needs and nothing else.

Shapes: b pairs of this rank, C channels, H and W pixels, T tokens, D numbers per embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn

from schemas.training import TrainingSpec
from training.model import Model

Embedded = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""image_bD and text_bD of unit length, the logits' scale, and their bias where the loss has one."""


class Towers(nn.Module):
    """pixels_bCHW (uint8) and tokens_bT → what the loss is computed from; bfloat16 inside where the spec says so."""

    def __init__(self, model: Model, spec: TrainingSpec) -> None:
        super().__init__()
        self.network = model.network
        self._device_type = model.device.type
        self._bf16 = spec.precision == "bf16" or (spec.precision == "auto" and model.device.type == "cuda")
        self._biased = spec.loss == "siglip"
        if not self._biased and self.network.logit_bias is not None:
            self.network.logit_bias.requires_grad_(False)  # DDP waits for the gradient of whatever is trained
        compiled: Any = torch.compile if spec.compile else lambda function: function
        self._pictures, self._captions = compiled(model.embed_pictures), compiled(model.embed_captions)

    def forward(self, pixels_bCHW: Tensor, tokens_bT: Tensor) -> Embedded:
        """Both towers, and the temperature."""
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._bf16):
            image_bD, text_bD = self._pictures(pixels_bCHW), self._captions(tokens_bT)
        bias = self.network.logit_bias.clone() if self._biased else None
        return image_bD, text_bD, self.network.logit_scale.exp(), bias
