"""The table of families: which class of transformers, which module plays which role, how pictures become tokens.

Everything that differs between families and that others must know stands here as a fact of the table; nobody else
asks for a family's name. A new family is a row, a function in `configs.py` and one in `processors.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.errors import InputError
from schemas.nearest import unknown_name

Stacked = Literal["all", "rows", "tiles"]
"""How tensors of pictures of several samples are put together. "all": the first axis counts the pictures, tiles or
patches of all rows: joined along it, other axes filled up with zeros. "rows": it counts the rows of a batch, the second
what each has. "tiles": the first two axes, pictures and their tiles, count as one: all go into one picture [1, tiles].
"""
_LLAVA = {
    "encoder": ("model.vision_tower",),
    "connector": ("model.multi_modal_projector", "model.image_newline"),
    "llm": ("model.language_model",),
    "head": ("lm_head",),
}
_IDEFICS = {
    "encoder": ("model.vision_model",),
    "connector": ("model.connector",),
    "llm": ("model.text_model",),
    "head": ("lm_head",),
}
_QWEN = {
    "encoder": ("model.visual",),
    "connector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
    "llm": ("model.language_model",),
    "head": ("lm_head",),
}
_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_IDEFICS_TOKENS = {
    "image_token": "<image>",
    "image_boundary_token": "<fake_token_around_image>",
    "fake_image_token": "<fake_token_around_image>",
    "end_of_utterance_token": "<end_of_utterance>",
}


@dataclass(frozen=True)
class Family:
    """What is to be known of one of transformers' vision-language models."""

    name: str
    model: str
    """Name of the class in transformers; `AutoModelForImageTextToText` finds it from the saved configuration."""
    model_type: str
    """What transformers calls it in a configuration."""
    roles: Mapping[str, tuple[str, ...]]
    """encoder, connector, llm, head → where their modules or parameters lie; the longest prefix that fits counts."""
    modes: tuple[str, ...]
    """What can be done with pictures; the first is done unless another is asked for."""
    template: str
    """The family's chat template, a file in templates/."""
    tokens: Mapping[str, str]
    """Attributes that its processor asks of the tokenizer, and the special tokens behind them."""
    image: str
    """What stands for a picture in a rendered conversation; the processor makes as many tokens of it as it takes."""
    video: str = ""
    """What stands for a video; empty where the family sees pictures alone."""
    template_tokens: tuple[str, ...] = ()
    """Special tokens of the chat template."""
    packs: bool = True
    """Whether rows of several samples stay apart (attention_mask None, use_cache False, positions restarting)."""
    positions: Literal["plain", "mrope"] = "plain"
    """position_ids of a packed row: [B, L], restarting at 0; or [4, B, L]: these, and M-RoPE's three of each sample."""
    stacked: Stacked = "all"
    trunk: str = "model"
    """The module that gives `last_hidden_state`, of which the head makes logits; empty where only logits come out."""
    encoder_type: str | None = None
    """The one model type that its encoder can be; None where any of transformers' can be one."""
    llm_type: str | None = None
    """The one model type that its language model can be; None where any can be one."""
    weights_of: Mapping[str, str] = field(default_factory=dict)
    """Other model types whose weights have the same names: of the llm or the encoder."""
    frozen: tuple[str, ...] = ()
    """Roles that cannot learn."""
    needs_pictures: bool = False
    """Whether its class reads no text alone."""
    objectives: tuple[str, ...] = ("answers",)
    """What a stage can learn by."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """What the processor is to be called with beside text and pictures (`processor_kwargs`).

    Name the template too, `chat_template=processor.chat_template`: of videos SmolVLM takes one of its own otherwise.
    """

    def prefixes(self, config: Any) -> dict[str, tuple[str, ...]]:
        """The roles of a model with this configuration; layers of cross-attention are part of the connector."""
        crossed = getattr(getattr(config, "text_config", None), "cross_attention_layers", None) or ()
        layers = tuple(f"{self.roles['llm'][0]}.layers.{i}" for i in crossed)
        return {role: (*paths, *layers) if role == "connector" else paths for role, paths in self.roles.items()}

    def role_of(self, parameter: str, config: Any) -> str:
        """Which role a parameter belongs to, by the longest prefix: encoder, connector, llm or head."""
        fits = [
            (len(prefix), role)
            for role, prefixes in self.prefixes(config).items()
            for prefix in prefixes
            if parameter == prefix or parameter.startswith(f"{prefix}.")
        ]
        assert fits, f"{self.name}: {parameter} belongs to no role"
        return max(fits)[1]

    def answers_apart(self, config: Any) -> bool:
        """Whether answers go to a decoder of their own (T5's): the prompt is the input, the answer the labels."""
        return bool(getattr(config, "is_encoder_decoder", False))

    def count_tiles(self, inputs: Mapping[str, Any]) -> int:
        """How many pictures or tiles the encoder sees in what the processor made of one sample."""
        for grid in ("image_grid_thw", "video_grid_thw"):
            if grid in inputs:
                return sum(len(inputs[name]) for name in ("image_grid_thw", "video_grid_thw") if name in inputs)
        pixels = next((inputs[name] for name in ("pixel_values", "pixel_values_videos") if name in inputs), None)
        if pixels is None:
            return 0
        if pixels.ndim <= 3:  # fuyu: patches of one picture
            return 1
        count = 1
        for size in pixels.shape[:-3]:
            count *= int(size)
        return count


_ROWS = (
    Family(
        "llava", "LlavaForConditionalGeneration", "llava", _LLAVA, ("single",), "vicuna",
        {"image_token": "<image>"}, "<image>\n",
    ),
    Family(
        "llava_next", "LlavaNextForConditionalGeneration", "llava_next", _LLAVA, ("tiles",), "vicuna",
        {"image_token": "<image>"}, "<image>\n",
    ),
    Family(
        "llava_onevision", "LlavaOnevisionForConditionalGeneration", "llava_onevision", _LLAVA, ("tiles",), "chatml",
        {"image_token": "<image>", "video_token": "<video>"}, "<image>\n", "<video>\n", ("<|im_start|>", "<|im_end|>"),
    ),
    Family(
        "perception_lm", "PerceptionLMForConditionalGeneration", "perception_lm", _LLAVA, ("tiles", "single"), "llama3",
        {"image_token": "<|image|>", "video_token": "<|video|>"}, "<|image|>", "<|video|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), encoder_type="timm_wrapper",
        stacked="tiles",
    ),
    Family(
        "internvl", "InternVLForConditionalGeneration", "internvl", _LLAVA, ("tiles", "single"), "chatml",
        {
            "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        "<IMG_CONTEXT>\n", "<video>\n", ("<|im_start|>", "<|im_end|>"), encoder_type="internvl_vision",
    ),
    Family(
        "idefics2", "Idefics2ForConditionalGeneration", "idefics2", _IDEFICS, ("native", "tiles"), "idefics",
        _IDEFICS_TOKENS, "<image>\n", stacked="rows", encoder_type="idefics2_vision",
        weights_of={"siglip_vision_model": "encoder"},
    ),
    Family(
        "idefics3", "Idefics3ForConditionalGeneration", "idefics3", _IDEFICS, ("tiles", "single"), "idefics",
        _IDEFICS_TOKENS, "<image>", stacked="rows", encoder_type="idefics3_vision",
        weights_of={"siglip_vision_model": "encoder"},
    ),
    Family(
        "smolvlm", "SmolVLMForConditionalGeneration", "smolvlm", _IDEFICS, ("tiles", "single"), "idefics",
        _IDEFICS_TOKENS | {"global_image_token": "<global-img>", "video_token": "<video>"}, "<image>", "<video>",
        stacked="rows", encoder_type="smolvlm_vision", weights_of={"siglip_vision_model": "encoder"},
        call={"do_sample_frames": False},
    ),
    Family(
        "blip2", "Blip2ForConditionalGeneration", "blip-2",
        {
            "encoder": ("vision_model",), "connector": ("qformer", "query_tokens", "language_projection"),
            "llm": ("language_model",), "head": ("language_model.lm_head",),
        },
        ("single",), "question", {"image_token": "<image>"}, "<image>", packs=False, trunk="",
        encoder_type="blip_2_vision_model", needs_pictures=True, objectives=("answers", "blip2_stage1"),
    ),
    Family(
        "qwen2_vl", "Qwen2VLForConditionalGeneration", "qwen2_vl", _QWEN, ("native",), "chatml", _QWEN_TOKENS,
        "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>",
        ("<|im_start|>", "<|im_end|>"), positions="mrope", encoder_type="qwen2_vl_vision", llm_type="qwen2_vl_text",
        weights_of={"qwen2": "llm"},
    ),
    Family(
        "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", _QWEN, ("native",), "chatml", _QWEN_TOKENS,
        "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>",
        ("<|im_start|>", "<|im_end|>"), positions="mrope", encoder_type="qwen2_5_vl_vision",
        llm_type="qwen2_5_vl_text", weights_of={"qwen2": "llm"},
    ),
    Family(
        "qwen3_vl", "Qwen3VLForConditionalGeneration", "qwen3_vl", _QWEN, ("native",), "chatml", _QWEN_TOKENS,
        "<|vision_start|><|image_pad|><|vision_end|>", "<|video_pad|>",
        ("<|im_start|>", "<|im_end|>"), positions="mrope", encoder_type="qwen3_vl_vision", llm_type="qwen3_vl_text",
        weights_of={"qwen3": "llm"},
    ),
    Family(
        "mllama", "MllamaForConditionalGeneration", "mllama",
        {
            "encoder": ("model.vision_model",), "connector": ("model.multi_modal_projector",),
            "llm": ("model.language_model",), "head": ("lm_head",),
        },
        ("tiles",), "llama3", {"image_token": "<|image|>"}, "<|image|>",
        template_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), packs=False, stacked="rows",
        encoder_type="mllama_vision_model", llm_type="mllama_text_model", weights_of={"llama": "llm"},
    ),
    Family(
        "fuyu", "FuyuForCausalLM", "fuyu",
        {
            "connector": ("model.vision_embed_tokens",), "llm": ("model.language_model",), "head": ("lm_head",),
        },
        ("native",), "fuyu", {"image_token": "|SPEAKER|", "image_newline_token": "|NEWLINE|"}, "|SPEAKER|",
        template_tokens=("<s>", "<0x04>"), packs=False,
    ),
    Family(
        "chameleon", "ChameleonForConditionalGeneration", "chameleon",
        {"encoder": ("model.vqmodel",), "llm": ("model",), "head": ("lm_head",)},
        ("single",), "vicuna",
        {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}, "<image>",
        encoder_type="chameleon_vqgan", llm_type="chameleon", frozen=("encoder",),
        objectives=("answers", "answers_and_images"),
        call={"return_for_text_completion": True},
    ),
)  # fmt: skip
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ROWS}
MODEL_TYPES: Mapping[str, Family] = {family.model_type: family for family in _ROWS}


def family_named(name: str) -> Family:
    """The family of that name. Raises InputError, with what exists."""
    found = FAMILIES.get(name)
    if found is None:
        raise InputError(f"family: {unknown_name(name, list(FAMILIES), 'there are')}")
    return found


def family_of(config: Any) -> Family:
    """The family of a model's configuration. Raises InputError."""
    found = MODEL_TYPES.get(config.model_type)
    if found is None:
        raise InputError(f"model type {unknown_name(str(config.model_type), list(MODEL_TYPES), 'families are of')}")
    return found
