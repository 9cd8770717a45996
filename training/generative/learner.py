"""What the loop trains in the generative task: a vision-language model by the answers it is to give.

Shapes: B rows of this rank's part, L tokens of a row, D numbers of a hidden state.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from schemas.generative import GenerativeSpec, Stage
from training.generative.batches import GenerativeBatch
from training.generative.build import Built
from training.generative.collation import IGNORED, Collated
from training.generative.hidden_states import hidden_states
from training.generative.image_tokens import with_image_labels
from training.generative.loss import answer_loss
from training.learner import Learner
from training.parallel import average_scalars, blocks, in_parallel, unsynchronised
from training.ranks import ALONE, Ranks


def learner_of(
    built: Built, spec: GenerativeSpec, stage: Stage, device: torch.device, ranks: Ranks = ALONE
) -> Learner[GenerativeBatch]:
    """What learns by the stage's objective."""
    if stage.objective == "blip2_stage1":
        from training.generative.blip2_stage1_learner import Blip2Stage1

        return Blip2Stage1(built, spec, stage, device, ranks)
    return Generative(built, spec, stage, device, ranks)


class _Answers(nn.Module):
    """Inputs and labels → this rank's share of the loss; one module, so that DDP and FSDP2 take hold of all of it."""

    def __init__(self, built: Built, ranks: Ranks, *, bf16: bool) -> None:
        super().__init__()
        self.model = built.model
        self._family, self._ranks, self._bf16 = built.family, ranks, bf16

    def forward(self, inputs: Mapping[str, Tensor], labels_BL: Tensor, label_tokens: int) -> Tensor:
        head = self.model.get_output_embeddings()
        with torch.autocast(labels_BL.device.type, torch.bfloat16, enabled=self._bf16):
            hidden_BLD = hidden_states(self.model, self._family, inputs)
            return answer_loss(hidden_BLD, labels_BL, head, label_tokens, ranks=self._ranks)


class Generative:
    """Learns from batches of conversations. Making one moves the model to its device, and FSDP2's shares to ranks."""

    def __init__(
        self, built: Built, spec: GenerativeSpec, stage: Stage, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.network: nn.Module = built.model.to(device)
        self.device, self.ranks = device, ranks
        self._built, self._stage = built, stage
        bf16 = spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda")
        if spec.compile:
            for block in blocks(self.network):
                block.compile()  # type: ignore[no-untyped-call]
        self._answers = in_parallel(_Answers(built, ranks, bf16=bf16), spec.parallel, ranks, some_unused=True)
        self._shared_out = spec.parallel == "fsdp" and ranks.count > 1

    def gradients(self, batch: GenerativeBatch, step: int) -> Tensor:
        """Add the gradient of the batch's loss to the weights, part by part; returns this rank's share of the loss."""
        parts = [self._moved(part) for part in batch.parts]
        label_tokens = batch.label_tokens
        if self._stage.objective == "answers_and_images":
            parts = [(inputs, with_image_labels(self._built, inputs, labels_BL)) for inputs, labels_BL in parts]
            told = sum(int((labels_BL != IGNORED).sum()) for _, labels_BL in parts)
            label_tokens = round(self.ranks.mean([told], self.device)[0] * self.ranks.count)
        total = torch.zeros((), device=self.device)
        for number, (inputs, labels_BL) in enumerate(parts):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last else unsynchronised(self._answers):
                share = self._answers(inputs, labels_BL, label_tokens)
                share.backward()
            total += share.detach()
        if self._shared_out:
            average_scalars(self._answers, self.ranks)
        return total

    def sizes(self, batch: GenerativeBatch) -> Mapping[str, int]:
        """Samples, tokens without padding, and those that are learnt."""
        return {"samples": batch.samples, "tokens": batch.tokens, "label_tokens": batch.label_tokens}

    def settle(self) -> None:
        """Nothing is bounded."""

    def figures(self) -> dict[str, Tensor]:
        """Nothing more."""
        return {}

    def _moved(self, part: Collated) -> tuple[dict[str, Any], Tensor]:
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in part.inputs.items()}
        return inputs, part.labels_BL.to(self.device, non_blocking=True)
