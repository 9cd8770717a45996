"""What the loop trains in the contrastive task: two towers and their loss, on one rank or several.

Shapes: b pairs of this rank, C channels, H and W pixels, T tokens, D numbers per embedding.
"""

import math
from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from schemas.towers import Phase, phase_at
from schemas.training import TrainingSpec
from training.batches import Batch
from training.grad_cache import fill_gradients
from training.lengths import mask_patches, shorter_captions, shorter_pictures
from training.losses import info_nce, pairwise_sigmoid
from training.model import Model
from training.parallel import average_scalars, in_parallel
from training.ranks import ALONE, Ranks
from training.stalls import Stalls
from training.towers import Towers

_LARGEST_SCALE = math.log(100)  # CLIP, section 2.5


class Step(Protocol):
    """What the loop asks of a batch, whatever is learnt from it."""

    @property
    def position(self) -> tuple[int, ...]:
        """Where the next batch begins."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """Samples that were passed over on the way, by reason."""

    @property
    def stalls(self) -> Stalls:
        """What making it waited for."""


Made = TypeVar("Made", bound=Step)
_Given = TypeVar("_Given", bound=Step, contravariant=True)


class Learner(Protocol[_Given]):
    """What the loop asks of whatever it trains."""

    network: nn.Module
    device: torch.device
    ranks: Ranks

    def gradients(self, batch: _Given, step: int) -> Tensor:
        """Add the gradient of the batch's loss to the weights; returns this rank's share of the loss."""

    def sizes(self, batch: _Given) -> Mapping[str, int]:
        """How many `samples` a step has on all ranks together, and what else its speed is counted in."""

    def settle(self) -> None:
        """Keep the weights within their bounds after a step."""

    def figures(self) -> dict[str, Tensor]:
        """What else is worth a line in the log, each without a dimension, as it is after a step."""


class Contrastive:
    """Learns from batches of pairs. Making one moves FSDP2's shares to their ranks: the optimiser comes after it."""

    def __init__(self, model: Model, spec: TrainingSpec, ranks: Ranks = ALONE) -> None:
        self.network: nn.Module = model.network
        self.device = model.device
        self.ranks = ranks
        self._spec = spec
        self._phase: Phase | None = None
        self._towers = in_parallel(Towers(model, spec), spec.parallel, ranks)
        self._scale: Tensor = model.network.logit_scale
        self._shared_out = spec.parallel == "fsdp" and ranks.count > 1

    def gradients(self, batch: Batch, step: int) -> Tensor:
        """Add the gradient of the batch's loss to the weights; returns this rank's share of the loss."""
        pixels_bCHW = torch.as_tensor(batch.pixels_BCHW, device=self.device)
        tokens_bT = torch.as_tensor(batch.tokens_BT, device=self.device)
        if self._spec.phases:
            pixels_bCHW, tokens_bT = self._shortened(pixels_bCHW, tokens_bT, step)
        loss = fill_gradients(self._towers, pixels_bCHW, tokens_bT, self._loss_of, self._spec.micro_batch)
        if self._shared_out:
            average_scalars(self._towers, self.ranks)
        return loss

    def sizes(self, batch: Batch) -> Mapping[str, int]:
        """The pairs."""
        return {"samples": len(batch.tokens_BT) * self.ranks.count}

    def settle(self) -> None:
        """The temperature stays between 1 and 100."""
        with torch.no_grad():
            self._scale.clamp_(0, _LARGEST_SCALE)

    def figures(self) -> dict[str, Tensor]:
        """The logarithm of the temperature."""
        return {"logit_scale": self._scale.detach().clone()}

    def _loss_of(self, image_bD: Tensor, text_bD: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            return pairwise_sigmoid(image_bD, text_bD, scale, bias, self._spec.loss_chunk, self.ranks)
        return info_nce(image_bD, text_bD, scale, self._spec.loss_chunk, self.ranks)

    def _shortened(self, pixels_bCHW: Tensor, tokens_bT: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The inputs as the step's phase has them."""
        phase = phase_at(self._spec.phases, step, self._spec.steps)
        if phase != self._phase:
            mask_patches(self.network, phase.patch_dropout)
            self._phase = phase
        if phase.image_px is not None:
            pixels_bCHW = shorter_pictures(pixels_bCHW, phase.image_px)
        if phase.text_tokens is not None:
            text = getattr(self.network, "text", self.network)
            pool_type = getattr(self.network, "text_pool_type", getattr(text, "pool_type", "argmax"))
            eos_id = getattr(self.network, "text_eos_id", getattr(text, "eos_id", None))
            tokens_bT = shorter_captions(tokens_bT, phase.text_tokens, pool_type, eos_id)
        return pixels_bCHW, tokens_bT
