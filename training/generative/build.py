"""A specification → a model of transformers with its weights, and the processor that feeds it."""

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schemas.errors import InputError
from schemas.generative import GenerativeSpec, Images
from training.generative.configs import set_images, whole_config
from training.generative.families import Family, family_named, family_of
from training.generative.processors import PROCESSORS
from training.generative.sources import OWN, as_input_error, own_tower, settings_of
from training.generative.stages import require_stages
from training.generative.templates import chat_template


@dataclass(frozen=True)
class Built:
    """A model, its processor, its row of the table, and what a user should know of how they came to be."""

    model: Any
    processor: Any
    family: Family
    note: str = ""


def build(spec: GenerativeSpec, *, meta: bool = False) -> Built:
    """The model that a specification names: new weights by its seed, then those of its parts, in float32 on the CPU.

    `meta` gives it without memory or weights, for counting. Raises InputError, with what exists or does not fit.
    """
    import torch

    family = family_named(spec.family)
    _require_images(family, spec.image)
    require_stages(family, spec.stages)
    if spec.weights is not None:
        return _whole(spec, family)
    tokenizer = tokenizer_of(spec, family)
    config = whole_config(family, spec, tokenizer)
    with torch.random.fork_rng(devices=[]), as_input_error(f"family {family.name}"):
        torch.manual_seed(spec.seed)
        with torch.device("meta" if meta else "cpu"):
            model = _class_of(family)(config)
        if hasattr(model, "query_tokens"):  # which transformers leaves all alike, and so they would stay
            torch.nn.init.normal_(model.query_tokens, std=config.qformer_config.initializer_range)
    if not meta:
        _load_parts(model, family, spec)
    processor = _processor(family, config, tokenizer, spec.image, _look(spec, config))
    processor.chat_template = chat_template(family, config, tokenizer, spec.template, tokenizer.chat_template)
    _ends(model, processor)
    return Built(model.eval(), processor, family)


def open_model(folder: Path | str) -> Built:
    """A trained model, or any of the families that transformers loads: a folder or a hub's name. Raises InputError."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from training.generative.exact_processors import exact

    with as_input_error(f"model {folder}"):
        config = AutoConfig.from_pretrained(folder)
        family = family_of(config)
        if "Blip2ForImageTextRetrieval" in (config.architectures or ()):
            raise InputError(
                f"model {folder}: is BLIP-2's first stage, which answers nothing; train a stage of answers after it"
            )
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        processor = exact(AutoProcessor.from_pretrained(folder))
    if processor.chat_template is None:
        processor.chat_template = chat_template(
            family, model.config, processor.tokenizer, None, processor.tokenizer.chat_template
        )
    return Built(model.eval(), processor, family)


def tokenizer_of(spec: GenerativeSpec, family: Family) -> Any:
    """The tokenizer with the special tokens that the family's processor and template ask for. Raises InputError."""
    from transformers import AutoTokenizer

    named = spec.tokenizer or (spec.llm.weights if spec.llm is not None else None)
    if named is None:
        raise InputError("tokenizer: is missing; name a folder or a hub's name, or llm.weights that bring one")
    with as_input_error(f"tokenizer {named}"):
        tokenizer = AutoTokenizer.from_pretrained(named, extra_special_tokens=dict(family.tokens))
    if tokenizer.backend != "tokenizers":
        raise InputError(f"tokenizer {named}: is not one of the tokenizers library; only such tell where answers lie")
    named_tokens = [*family.tokens.values()]
    if spec.template is None:
        named_tokens = [*family.template_tokens, *named_tokens]
    if family.name == "chameleon":
        named_tokens = [*_codes(spec), *named_tokens]
    missing = [token for token in dict.fromkeys(named_tokens) if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _codes(spec: GenerativeSpec) -> list[str]:
    """Names of Chameleon's picture tokens: digits of the code as letters A to J."""
    count = settings_of(spec.encoder, "encoder").get("num_embeddings", 8192) if spec.encoder is not None else 0
    return ["IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z" for code in range(count)]


def _processor(family: Family, config: Any, tokenizer: Any, images: Images, look: dict[str, Any]) -> Any:
    mode = images.mode or family.modes[0]
    with as_input_error(f"processor of {family.name}"):
        return PROCESSORS[family.name](config, tokenizer, images.model_copy(update={"mode": mode}), look)


def _class_of(family: Family) -> Any:
    import transformers

    return getattr(transformers, family.model)


def _load_parts(model: Any, family: Family, spec: GenerativeSpec) -> None:
    from training.generative.part_weights import load_encoder, load_llm

    if spec.encoder is not None and spec.encoder.weights is not None:
        load_encoder(model, family, spec.encoder.weights)
    if spec.llm is not None and spec.llm.weights is not None:
        load_llm(model, family, spec.llm.weights)


def _whole(spec: GenerativeSpec, family: Family) -> Built:
    """A whole model with its own processor, and its own chat template where that marks answers."""
    built = open_model(str(spec.weights))
    if built.family.name != family.name:
        raise InputError(f"weights {spec.weights}: is a {built.family.name}, but the specification says {family.name}")
    processor, present = built.processor, built.processor.chat_template
    if spec.image != Images():  # else pictures are as the model has had them
        set_images(built.model.config, family, spec.image)
        shown = processor.image_processor
        look = {"image_mean": shown.image_mean, "image_std": shown.image_std}
        processor = _processor(family, built.model.config, processor.tokenizer, spec.image, look)
        built = replace(built, processor=processor)
    processor.chat_template = chat_template(family, built.model.config, processor.tokenizer, spec.template, present)
    _ends(built.model, processor)
    if spec.template is None and processor.chat_template != present:
        note = f"the chat template of {spec.weights} does not mark answers; the default of {family.name} is taken"
        return replace(built, note=note)
    return built


def _ends(model: Any, processor: Any) -> None:
    """Generation ends where answers do: at the last token that the template counts to the assistant."""
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    ends = end_tokens(model, processor)
    if ends:
        model.generation_config.eos_token_id = ends


def end_tokens(model: Any, processor: Any) -> list[int]:
    """The tokens that end an answer: what the chat template puts behind it, or else what the model has for it."""
    said = [{"role": role, "content": [{"type": "text", "text": "a"}]} for role in ("user", "assistant")]
    text = processor.apply_chat_template(said, tokenize=False).rstrip()
    last = int(processor.tokenizer(text, add_special_tokens=False)["input_ids"][-1])
    added = processor.tokenizer.added_tokens_decoder.get(last)
    if added is not None and added.special:
        return [last]
    own = model.generation_config.eos_token_id
    return [own] if isinstance(own, int) else list(own or [])


def _look(spec: GenerativeSpec, config: Any) -> dict[str, Any]:
    """Mean and deviation of the pixels that the encoder was trained with, where they are known."""
    from transformers import AutoImageProcessor

    weights = spec.encoder.weights if spec.encoder is not None else None
    vision = getattr(config, "vision_config", None)
    own = own_tower(weights)
    if own is not None:
        pictures = json.loads((own / OWN).read_text(encoding="utf-8"))["preprocess_cfg"]
        return {"image_mean": list(pictures["mean"]), "image_std": list(pictures["std"])}
    if vision is not None and vision.model_type == "timm_wrapper":
        from training.generative.timm_towers import tower_of

        return tower_of(vision).look
    if weights is not None:
        with contextlib.suppress(OSError, ValueError):  # weights without a processor beside them
            shown = AutoImageProcessor.from_pretrained(weights)
            return {"image_mean": shown.image_mean, "image_std": shown.image_std}
    if vision is not None and vision.model_type == "siglip_vision_model":
        return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return {}


def _require_images(family: Family, images: Images) -> None:
    """What a family cannot do with pictures is refused with what it can."""
    if images.mode is not None and images.mode not in family.modes:
        raise InputError(f"image.mode: {family.name} cannot do {images.mode!r}; it can: {', '.join(family.modes)}")
    mode = images.mode or family.modes[0]
    if images.max_tiles is not None and mode != "tiles":
        raise InputError(f"image.max_tiles: belongs to tiles, but {family.name} takes pictures {mode}")
    if images.side_px is not None and family.positions == "mrope":
        raise InputError(f"image.side_px: {family.name} takes pictures in their own size; say min_pixels, max_pixels")
    if (images.min_pixels or images.max_pixels) and family.positions != "mrope":
        raise InputError(f"image.min_pixels, max_pixels: belong to families of native size; {family.name} has side_px")
