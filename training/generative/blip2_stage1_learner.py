"""What the loop trains in BLIP-2's first stage, and how the pairs of curated sets become its batches."""

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from schemas.errors import InputError
from schemas.generative import GenerativeSpec, Stage
from training.generative.batches import GenerativeBatch
from training.generative.blip2_stage1 import LOSSES, FirstStage
from training.generative.blip2_stage1_model import SPEAKS
from training.generative.build import Built
from training.generative.collation import IGNORED, Encoded, Layout
from training.generative.conversations import Conversation, Unfit
from training.generative.encoding import Encoder
from training.generative.packing import Budget
from training.parallel import average_scalars, blocks, in_parallel
from training.ranks import ALONE, Ranks

_BOUNDS = (0.001, 0.5)  # of the temperature, as the paper's own code has them


class CaptionEncoder(Encoder):
    """A picture and its caption, without a question; longer captions than `max_tokens` are cut, and counted as such.

    What a caption says is text, even where it looks like a control token.
    """

    def __init__(self, built: Built, max_tokens: int) -> None:
        most = min(max_tokens, built.model.config.qformer_config.max_position_embeddings)
        self.layout = Layout(
            built.family.count_tiles,
            packs=False,
            pad_id=built.processor.tokenizer.pad_token_id or 0,
            needs_pictures=True,
        )
        self.budget = Budget(most, None)
        self._show = built.processor.image_processor
        self._tokenizer = Tokenizer.from_str(built.processor.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(most)
        self._tokenizer.encode_special_tokens = True

    def encode(self, conversation: Conversation) -> Encoded:
        """The sample. Raises Unfit: a picture `missing` or `broken`; `unanswered`, where the caption is empty."""
        [picture] = conversation.pictures
        caption = str(conversation.turns[-1].contents[0])
        if not caption.strip():
            raise Unfit("unanswered", f"{conversation.name}: has an empty caption")
        [pixels_HWC] = picture.read()
        pixels_1CHW = self._show(Image.fromarray(pixels_HWC), return_tensors="pt")["pixel_values"]
        read = self._tokenizer.encode(caption)
        tokens_T = torch.tensor(read.ids)
        labels_T = tokens_T.clone()
        labels_T[0] = IGNORED
        return Encoded({"input_ids": tokens_T[None], "pixel_values": pixels_1CHW}, labels_T, 1, bool(read.overflowing))


class Blip2Stage1:
    """Learns from pairs. Making one moves the model to its device, and FSDP2's shares to ranks."""

    def __init__(
        self, built: Built, spec: GenerativeSpec, stage: Stage, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        """Raises InputError where a rank has no other pair to tell its own from."""
        if stage.batch_size < 2 * ranks.count:
            raise InputError(
                f"batch_size: {stage.objective} needs two pairs at least on each of {ranks.count} processes"
            )
        self.network: nn.Module = built.model.to(device)
        self.device, self.ranks = device, ranks
        bf16 = spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda")
        if spec.compile:
            for block in blocks(self.network):
                block.compile()  # type: ignore[no-untyped-call]
        speaks = built.processor.tokenizer.convert_tokens_to_ids(SPEAKS)
        self._losses = in_parallel(FirstStage(built.model, speaks, ranks, bf16=bf16), spec.parallel, ranks)
        self._shared_out = spec.parallel == "fsdp" and ranks.count > 1
        self._temperature: Tensor = built.model.temperature
        self._told: dict[str, Tensor] = {}

    def gradients(self, batch: GenerativeBatch, step: int) -> Tensor:
        """Add the gradient of the three losses' sum to the weights; returns this rank's share of it."""
        [part] = batch.parts
        given = {name: value.to(self.device, non_blocking=True) for name, value in part.inputs.items()}
        inputs: tuple[Any, ...] = (given["pixel_values"], given["input_ids"], given["attention_mask"])
        shares = self._losses(*inputs, batch.label_tokens)
        shares.sum().backward()
        if self._shared_out:
            average_scalars(self._losses, self.ranks)
        self._told = dict(zip(LOSSES, shares.detach(), strict=True))
        return shares.detach().sum()

    def sizes(self, batch: GenerativeBatch) -> Mapping[str, int]:
        """Pairs, and tokens of captions without padding."""
        return {"samples": batch.samples, "tokens": batch.tokens}

    def settle(self) -> None:
        """The temperature stays within its bounds."""
        with torch.no_grad():
            self._temperature.clamp_(*_BOUNDS)

    def figures(self) -> dict[str, Tensor]:
        """The three losses, this rank's share, and the temperature."""
        return self._told | {"temperature": self._temperature.detach().clone()}
