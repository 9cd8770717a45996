"""Two towers as one module, so that DDP, FSDP2 and torch.compile take hold of what the loss needs and nothing else.

Shapes: b pairs of this rank, C channels, H and W pixels, T tokens, D numbers per embedding.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from schemas.training import TrainingSpec
from training.model import Model
from training.ranks import Ranks

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


def in_parallel(towers: Towers, spec: TrainingSpec, ranks: Ranks) -> nn.Module:
    """The towers as all ranks train them: each with all weights (DDP), or each with its share of them (FSDP2)."""
    if ranks.count == 1:
        return towers
    if spec.parallel == "ddp":
        return DistributedDataParallel(towers, gradient_as_bucket_view=True)
    towers.to(memory_format=torch.contiguous_format)  # it cannot share out weights with channels last
    for block in _blocks(towers.network):
        fully_shard(block)
    # FSDP2 cannot shard the temperature and the bias; `average_scalars` does for them what it does for the others.
    fully_shard(towers, ignored_params={p for p in towers.parameters() if p.ndim == 0})
    return towers


def _blocks(module: nn.Module) -> list[nn.Module]:
    """What stands in a tower's lists of layers: the outermost ones, because each block costs an exchange."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) > 1:
            found += [block for block in child if any(p.ndim for p in block.parameters())]
        else:
            found += _blocks(child)
    return found


def average_scalars(towers: nn.Module, ranks: Ranks) -> None:
    """The mean over ranks of the gradients that FSDP2 leaves to us: those of the temperature and the bias."""
    for parameter in towers.parameters():
        if parameter.ndim == 0 and parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= ranks.count


def unsynchronised(towers: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Gradients stay on their rank meanwhile, where that saves an exchange."""
    return towers.no_sync() if isinstance(towers, DistributedDataParallel) else contextlib.nullcontext()
