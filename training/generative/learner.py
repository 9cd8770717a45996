"""What the loop trains in the generative task: a vision-language model by the answers it is to give.

Shapes: B rows of this rank's part, L tokens of a row, D numbers of a hidden state.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from schemas.generative import GenerativeSpec, Stage
from training.generative.batches import GenerativeBatch
from training.generative.build import Built
from training.generative.collation import IGNORED, Collated
from training.generative.flops import flops_of
from training.generative.hidden_states import hidden_states
from training.generative.image_tokens import with_image_labels
from training.generative.loss import answer_loss
from training.generative.packed_attention import PackedAttention, begins_of
from training.generative.parts import learning_role
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
    """Inputs and labels → this rank's share of the loss; one module, so that DDP and FSDP2 take hold of all of it.

    `touched` are names of weights that get a gradient, if of zeros, also where a batch shows no picture: they are added
    to what the language model reads, times zero.
    """

    def __init__(
        self, built: Built, spec: GenerativeSpec, stage: Stage, ranks: Ranks, *, bf16: bool, touched: frozenset[str]
    ) -> None:
        super().__init__()
        self.model = built.model
        self._packed = PackedAttention(built.model) if stage.pack else None
        self._compiled = spec.compile
        self._family, self._ranks, self._bf16, self._touched = built.family, ranks, bf16, touched
        if touched:
            self.model.get_input_embeddings().register_forward_hook(self._touch)

    def forward(
        self, inputs: Mapping[str, Tensor], labels_BL: Tensor, label_tokens: int, begins_N1: Tensor | None, longest: int
    ) -> Tensor:
        """With `begins_N1`, where the samples of packed rows begin, and a bound of their length."""
        head = self.model.get_output_embeddings()
        apart = self._packed.of(begins_N1, longest) if self._packed else contextlib.nullcontext()
        with apart, torch.autocast(inputs["input_ids"].device.type, torch.bfloat16, enabled=self._bf16):
            hidden_BLD = hidden_states(self.model, self._family, inputs)
            return answer_loss(hidden_BLD, labels_BL, head, label_tokens, ranks=self._ranks, compiled=self._compiled)

    def _touch(self, _module: nn.Module, _given: Any, read_BLD: Tensor) -> Tensor:
        sums = [p.sum() for name, p in self.model.named_parameters() if name in self._touched]
        return read_BLD + 0 * torch.stack(sums).sum().to(read_BLD.dtype)


class Generative:
    """Learns from batches of conversations. Making one moves the model to its device, and FSDP2's shares to ranks."""

    def __init__(
        self, built: Built, spec: GenerativeSpec, stage: Stage, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.network: nn.Module = built.model.to(device)
        self.device, self.ranks = device, ranks
        self._built, self._stage, self._flops = built, stage, flops_of(built)
        bf16 = spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda")
        if spec.compile:
            for block in blocks(self.network):
                block.compile()  # type: ignore[no-untyped-call]
        self._shared_out = spec.parallel == "fsdp" and ranks.count > 1
        # FSDP2 exchanges the gradients that there are, layer by layer: all ranks must have the same ones.
        self._touched = frozenset(_of_pictures(built) if self._shared_out else ())
        answers = _Answers(built, spec, stage, ranks, bf16=bf16, touched=self._touched)
        apart, whole = _blocks_of_llm(built), _never_learnt(built)
        self._answers = in_parallel(answers, spec.parallel, ranks, some_unused=True, apart=apart, whole=whole)

    def gradients(self, batch: GenerativeBatch, step: int) -> Tensor:
        """Add the gradient of the batch's loss to the weights, part by part; returns this rank's share of the loss."""
        parts = [(inputs, part.labels_BL) for inputs, part in zip(self._inputs(batch), batch.parts, strict=True)]
        begun = [self._begun(part) for part in batch.parts]
        label_tokens = batch.label_tokens
        if self._stage.objective == "answers_and_images":
            parts = [
                (inputs, with_image_labels(self._built, inputs, labels_BL.to(self.device)))
                for inputs, labels_BL in parts
            ]
            told = sum(int((labels_BL != IGNORED).sum()) for _, labels_BL in parts)
            label_tokens = round(self.ranks.mean([told], self.device)[0] * self.ranks.count)
        total = torch.zeros((), device=self.device)
        for number, ((inputs, labels_BL), (begins_N1, longest)) in enumerate(zip(parts, begun, strict=True)):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last else unsynchronised(self._answers):
                share = self._answers(inputs, labels_BL, label_tokens, begins_N1, longest)
                share.backward()
            total += share.detach()
        if self._shared_out:
            average_scalars(self._answers, self.ranks)
            self._forget_untold(parts)
        return total

    def sizes(self, batch: GenerativeBatch) -> Mapping[str, int]:
        """Samples, tokens without padding, those that are learnt, and operations if all shares are alike."""
        flops = round(sum(map(self._flops.of, batch.parts)) * self.ranks.count)
        counts = {"samples": batch.samples, "tokens": batch.tokens, "label_tokens": batch.label_tokens}
        return {**counts, "flops": flops}

    def settle(self) -> None:
        """Nothing is bounded."""

    def figures(self) -> dict[str, Tensor]:
        """Nothing more."""
        return {}

    def _forget_untold(self, parts: Sequence[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Where no rank was shown a picture, what only pictures need has no gradient, not even one of zeros."""
        shown = any(value.is_floating_point() for inputs, _ in parts for value in inputs.values())
        if not any(self.ranks.mean([float(shown)], self.device)):
            for name, parameter in self.network.named_parameters():
                parameter.grad = None if name in self._touched else parameter.grad

    def _begun(self, part: Collated) -> tuple[Tensor | None, int]:
        """Where the samples of packed rows begin, and a bound of their length."""
        if not self._stage.pack:
            return None, 0
        positions = part.inputs["position_ids"]
        begins_N1, longest = begins_of(positions if positions.ndim == 2 else positions[0])
        return begins_N1.to(self.device, non_blocking=True), longest

    def _inputs(self, batch: GenerativeBatch) -> Sequence[dict[str, Tensor]]:
        return batch.sent or batch.moved(lambda tensor: tensor.to(self.device, non_blocking=True)).sent or ()


def _blocks_of_llm(built: Built) -> list[nn.Module]:
    """The layers that each batch runs once, whether it shows pictures, videos, both or none."""
    names = {module: name for name, module in built.model.named_modules()}
    return [block for block in blocks(built.model) if _roles(built, block, names[block]) <= {"llm", "lora"}]


def _roles(built: Built, module: nn.Module, name: str) -> set[str]:
    config = built.model.config
    return {learning_role(f"{name}.{inner}", built.family, config) for inner, _ in module.named_parameters()}


def _of_pictures(built: Built) -> list[str]:
    """Names of weights that learn, and that only pictures need."""
    learnt = [name for name, p in built.model.named_parameters() if p.requires_grad]
    return [
        name for name in learnt if learning_role(name, built.family, built.model.config) in ("encoder", "connector")
    ]


def _never_learnt(built: Built) -> list[nn.Parameter]:
    """Weights of parts that no stage trains, and that are used beside the training too (Chameleon's codes)."""
    named = built.model.named_parameters()
    return [p for name, p in named if learning_role(name, built.family, built.model.config) in built.family.frozen]
