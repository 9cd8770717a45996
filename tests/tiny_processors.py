"""Tiny LLaVA and Qwen2-VL for tests of what they are fed; a token is a byte, a control token or part of a picture."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.generative.collation import Layout
from training.generative.conversations import Content, Conversation, Picture, Turn

SIDE_PX, PATCH_PX = 16, 8
CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' -}}"
    "{%- set said -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}IMAGE{%- elif part['type'] == 'video' -%}VIDEO"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endset -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- said + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}{{- said + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}"
)
_LLAVA_TEMPLATE = CHATML.replace("IMAGE", "<image>").replace("VIDEO", "")
_QWEN_TEMPLATE = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
    "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
)
_SPECIAL = (
    "<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 272,
}  # fmt: skip


@functools.cache
def tokenizer() -> Any:
    """A token for each byte, and control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(_SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<|im_end|>")


def llava_processor(template: str | None = _LLAVA_TEMPLATE) -> Any:
    """Four tokens a picture, whatever its size."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    size = {"height": SIDE_PX, "width": SIDE_PX}
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size)
    return LlavaProcessor(pictures, tokenizer(), PATCH_PX, "default", template, num_additional_image_tokens=1)


def qwen_processor() -> Any:
    """A token for every 16 × 16 pixels."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    fixed = {"patch_size": PATCH_PX, "merge_size": 2, "size": {"shortest_edge": 256, "longest_edge": 4096}}
    pictures, videos = Qwen2VLImageProcessor(**fixed), Qwen2VLVideoProcessor(**fixed)
    return Qwen2VLProcessor(pictures, tokenizer(), videos, _QWEN_TEMPLATE)


@functools.cache
def llava() -> Any:
    """CLIP's vision tower and a Llama, with random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE_PX,
        patch_size=PATCH_PX,
    )  # fmt: skip
    image = tokenizer().convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**_TEXT), image_token_id=image)
    return LlavaForConditionalGeneration(config).eval()


@functools.cache
def qwen() -> Any:
    """Qwen2-VL with random weights."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    tokens = {
        f"{name}_token_id": tokenizer().convert_tokens_to_ids(token)
        for name, token in (
            ("image", "<|image_pad|>"), ("video", "<|video_pad|>"), ("vision_start", "<|vision_start|>"),
            ("vision_end", "<|vision_end|>"),
        )
    }  # fmt: skip
    text = _TEXT | {"hidden_size": 64, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "patch_size": PATCH_PX, "mlp_ratio": 2, "hidden_size": 64}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)).eval()


def mrope(inputs: Mapping[str, Tensor]) -> Tensor:
    """Positions of a packed sample of Qwen2-VL [4, T]: of text, and M-RoPE's."""
    grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    three_31T, _ = qwen().model.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], **grids)
    return torch.cat([torch.arange(three_31T.shape[2])[None], three_31T[:, 0]])


def hidden_states(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Last hidden states BLD below the head."""
    return model.model(**inputs, use_cache=False).last_hidden_state


def llava_layout(**changes: Any) -> Layout:
    return Layout(lambda inputs: len(inputs.get("pixel_values", ())), pad_id=tokenizer().pad_token_id, **changes)


def qwen_layout() -> Layout:
    names = ("image_grid_thw", "video_grid_thw")
    return Layout(
        lambda inputs: sum(len(inputs.get(name, ())) for name in names),
        pad_id=tokenizer().pad_token_id, positions=mrope, videos=True,
    )  # fmt: skip


def picture(seed: int, width_px: int = 24, height_px: int = 16) -> np.ndarray:
    """uint8 pixels_HWC of smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC))


def shown(seed: int, width_px: int = 24, height_px: int = 16) -> Picture:
    return Picture(f"{seed}", lambda: [picture(seed, width_px, height_px)])


def talk(*said: str | tuple[Content, ...], name: str = "talk") -> Conversation:
    """User and assistant in turns; a text alone, or texts and pictures."""
    contents = [(one,) if isinstance(one, str) else one for one in said]
    return Conversation(
        name, tuple(Turn("assistant" if place % 2 else "user", one) for place, one in enumerate(contents))
    )
