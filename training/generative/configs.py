"""A specification's parts as one configuration of transformers; parts that do not fit are refused with both widths.

What follows from other settings (tokens per picture, the width that a projector meets) is filled in here, so that a
specification says each thing once.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import InputError
from schemas.generative import GenerativeSpec, Images, Part
from training.generative.families import Family
from training.generative.processors import FIRST_TILES, MOST_ROWS, ONEVISION_TILES, grids
from training.generative.sources import as_type, made_config, own_tower, require_names, settings_of, stored_config

Settings = dict[str, Any]
_BEFORE_PATCHES: Mapping[str, Callable[[Any], int]] = {
    "clip_vision_model": lambda _: 1,
    "vit": lambda _: 1,
    "dinov2": lambda _: 1,
    "dinov2_with_registers": lambda config: 1 + int(config.num_register_tokens),
    "siglip_vision_model": lambda _: 0,
}
"""Tokens that an encoder puts before those of the patches."""


def part_config(part: Part, role: str, family: Family, defaults: Mapping[str, Any]) -> Any:
    """The configuration of the encoder or of the language model; `defaults` where neither weights nor `config` say.

    Raises InputError.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    wanted = family.encoder_type if role == "encoder" else family.llm_type
    settings, where = settings_of(part, role), f"{role}.config"
    stored = _stored(part.weights, role, family, wanted) if part.weights is not None else {}
    model_type = settings.get("model_type", stored.get("model_type", wanted))
    if model_type is None:
        raise InputError(f"{where}: say its model_type, as transformers names it, e.g. {_EXAMPLES[role]}")
    if wanted is not None and model_type != wanted:
        raise InputError(f"{where}.model_type: is {model_type}; the family {family.name} takes a {wanted} as {role}")
    if model_type in CONFIG_MAPPING:
        require_names(CONFIG_MAPPING[model_type], settings, where)
    return made_config(model_type, stored | settings, where, {} if stored else defaults)


def _stored(weights: str, role: str, family: Family, wanted: str | None) -> Settings:
    """What the configuration of weights says, as the family's own type has it. Raises InputError."""
    config = _own_config(weights, wanted) if own_tower(weights) else stored_config(weights, role)
    if wanted == family.model_type:
        raise InputError(
            f"{role}.weights: {family.name} has no part that weights of others fit; name `weights`, a whole"
        )
    like = [wanted, *(theirs for theirs, of in family.weights_of.items() if of == role)]
    if wanted is not None and config.model_type not in like:
        raise InputError(
            f"{role}.weights {weights}: is a {config.model_type}; the family {family.name} takes as {role} "
            f"{' or '.join(str(one) for one in like)}"
        )
    found = as_type(config, wanted or config.model_type)
    if wanted == "mllama_text_model" and config.model_type == "llama":
        found |= _crossed(config.num_hidden_layers)
    return found | {"model_type": wanted or config.model_type}


_EXAMPLES = {"encoder": "clip_vision_model or siglip_vision_model", "llm": "llama or qwen2"}


def _own_config(weights: str, wanted: str | None) -> Any:
    from training.generative.own_towers import expressed_tower

    return expressed_tower(weights, wanted)[0]


def _crossed(layers: int) -> Settings:
    """Where Llama 3.2-Vision puts its layers of cross-attention: one after three, then one after every four."""
    crossed = max(1, layers // 4)
    places = [min(3, layers) + 5 * i for i in range(crossed)]
    return {"num_hidden_layers": layers + crossed, "cross_attention_layers": places}


def whole_config(family: Family, spec: GenerativeSpec, tokenizer: Any) -> Any:
    """The configuration of the model that the parts make. Raises InputError."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    settings: Settings = dict(spec.connector)
    require_names(CONFIG_MAPPING[family.model_type], settings, "connector")
    encoder = _encoder(family, spec)
    if spec.llm is None:
        raise InputError("llm: is missing; give its config, its weights, or `weights` of a whole model")
    text = part_config(spec.llm, "llm", family, _of_tokenizer(tokenizer))
    _fit_vocabulary(text, tokenizer, family)
    _SETTLED[family.name](settings, encoder, text, spec)
    if spec.image.side_px is not None and encoder is not None:
        _require_equal("image.side_px", spec.image.side_px, "the encoder's own side", _side_of(encoder))
    if family.name == "chameleon":  # whose configuration is its language model's
        settings = as_type(text, "chameleon") | settings | {"vocabulary_map": tokenizer.get_vocab()}
        settings.pop("model_type", None)
    else:
        settings["text_config"] = text
        if family.name not in ("blip2", "mllama"):  # which have no head of their own, or none that can be tied
            settings.setdefault("tie_word_embeddings", bool(getattr(text, "tie_word_embeddings", False)))
    if encoder is not None:
        settings["vq_config" if family.name == "chameleon" else "vision_config"] = encoder
    config = made_config(family.model_type, settings, "connector")
    return with_token_ids(config, tokenizer)


def with_token_ids(config: Any, tokenizer: Any) -> Any:
    """The configuration with the ids that the tokenizer has for pictures and videos."""
    names = tokenizer.special_tokens_map
    for token in ("image_token", "context_image_token", "video_token", "vision_start_token", "vision_end_token"):
        name = f"{token.removeprefix('context_')}_id"
        if token in names and hasattr(config, name):
            setattr(config, name, tokenizer.convert_tokens_to_ids(str(names[token])))
    return config


def _encoder(family: Family, spec: GenerativeSpec) -> Any:
    if "encoder" not in family.roles:
        if spec.encoder is not None:
            raise InputError(f"encoder: the family {family.name} has none; it sees raw patches; leave `encoder` out")
        return None
    if spec.encoder is None:
        raise InputError("encoder: is missing; give its config, its weights, or `weights` of a whole model")
    side = {} if spec.image.side_px is None else dict.fromkeys(("image_size", "resolution"), spec.image.side_px)
    return part_config(spec.encoder, "encoder", family, side)


def _side_of(encoder: Any) -> int:
    """The side in pixels of the pictures that an encoder takes."""
    if hasattr(encoder, "model_args"):
        return int(encoder.model_args["img_size"])
    side = getattr(encoder, "image_size", None) or encoder.resolution
    return int(side if isinstance(side, int) else side[0])


def _of_tokenizer(tokenizer: Any) -> Settings:
    """What a language model takes from its tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"vocab_size": len(tokenizer)} | {name: getattr(tokenizer, name) for name in names}


def _fit_vocabulary(text: Any, tokenizer: Any, family: Family) -> None:
    """As many rows as the tokenizer has tokens; Mllama keeps a row for the image token beside its vocabulary."""
    tokens = len(tokenizer)
    if family.name == "mllama" and tokenizer.image_token_id == tokens - 1:
        tokens -= 1
    text.vocab_size = max(text.vocab_size, tokens)
    if text.is_encoder_decoder and getattr(text, "decoder_start_token_id", None) is None:
        text.decoder_start_token_id = tokenizer.pad_token_id  # where T5's decoder begins


def _require_equal(one: str, this: int, other: str, that: int) -> None:
    if this != that:
        raise InputError(f"{one} is {this}, but {other} is {that}; they must be equal")


def _llava(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    if encoder.model_type not in _BEFORE_PATCHES:
        raise InputError(
            f"encoder: with the family {spec.family} it can be {', '.join(_BEFORE_PATCHES)}, not {encoder.model_type}; "
            "towers of timm go with perception_lm"
        )
    before = _BEFORE_PATCHES[encoder.model_type](encoder)
    if spec.family != "llava" and before > 1:
        raise InputError(
            f"encoder: {encoder.model_type} has {before} tokens before its patches; {spec.family} bears one"
        )
    strategy = settings.setdefault("vision_feature_select_strategy", "default" if before else "full")
    if strategy == "default" and not before:
        raise InputError(
            f"connector.vision_feature_select_strategy: `default` drops a class token, which {encoder.model_type} has "
            "not; say `full`"
        )
    if spec.family == "llava" or spec.family == "llava_next":
        patches = (encoder.image_size // encoder.patch_size) ** 2
        settings.setdefault("image_seq_length", patches + before - (strategy == "default"))


def _tiled_llava(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    _llava(settings, encoder, text, spec)
    for name, value in _canvases(spec.family, spec.image.max_tiles, encoder.image_size).items():
        settings.setdefault(name, value)


def _canvases(family: str, most: int | None, side: int) -> Settings:
    """On which canvases of tiles a LLaVA lays a picture."""
    if family == "llava_next":
        return {"image_grid_pinpoints": grids(most or FIRST_TILES, side, one=False)}
    tiles = f"anyres_max_{most or ONEVISION_TILES}"
    return {"image_grid_pinpoints": grids(most or MOST_ROWS**2, side, one=True), "vision_aspect_ratio": tiles}


def set_images(config: Any, family: Family, images: Images) -> None:
    """Change a whole model's configuration to what is asked of pictures. Raises InputError where it cannot be so."""
    encoder: Any = getattr(config, "vision_config", None) or getattr(config, "vq_config", None)
    if images.side_px is not None:
        own = config.image_size if encoder is None else _side_of(encoder)
        _require_equal("image.side_px", images.side_px, "the model's own side", own)
    if images.max_tiles is not None and hasattr(config, "image_grid_pinpoints"):
        for name, value in _canvases(family.name, images.max_tiles, _side_of(encoder)).items():
            setattr(config, name, value)
    elif images.max_tiles is not None and hasattr(encoder, "max_num_tiles"):
        _require_equal("image.max_tiles", images.max_tiles, "the model's max_num_tiles", encoder.max_num_tiles)


def _perception_lm(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    from training.generative.timm_towers import tower_of

    arguments = dict(encoder.model_args or {})
    if spec.image.side_px is not None:
        arguments.setdefault("img_size", spec.image.side_px)
    encoder.model_args = arguments
    tower = tower_of(encoder)
    if tower.class_tokens > 1:
        raise InputError(
            f"encoder: {encoder.architecture} has {tower.class_tokens} tokens before its patches; perception_lm bears "
            "one; take a tower without registers"
        )
    encoder.model_args = arguments | {"embed_dim": tower.width, "img_size": tower.side_px}
    settings.setdefault("vision_use_cls_token", bool(tower.class_tokens))


def _internvl(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    along = encoder.image_size[0] // encoder.patch_size[0] * settings.get("downsample_ratio", 0.5)
    if along != int(along):
        raise InputError(
            f"connector.downsample_ratio: {encoder.image_size[0] // encoder.patch_size[0]} patches along a side cannot "
            f"be brought to {along}"
        )
    settings.setdefault("image_seq_length", int(along) ** 2)


def _idefics2(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    if spec.image.max_tiles is not None:
        _require_equal("image.max_tiles", spec.image.max_tiles, "the quarters that idefics2 makes of a picture", 4)
    queries = dict(settings.get("perceiver_config") or {})
    width = queries.setdefault("hidden_size", text.hidden_size)
    _require_equal("connector.perceiver_config.hidden_size", width, "the llm's hidden_size", text.hidden_size)
    queries.setdefault("rms_norm_eps", getattr(text, "rms_norm_eps", 1e-6))
    settings["perceiver_config"] = queries


def _idefics3(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    along, shrink = encoder.image_size // encoder.patch_size, settings.get("scale_factor", 2)
    if along % shrink:
        raise InputError(f"connector.scale_factor: is {shrink}, which does not divide {along} patches along a side")


def _blip2(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    queries = dict(settings.get("qformer_config") or {})
    width = queries.setdefault("encoder_hidden_size", encoder.hidden_size)
    _require_equal(
        "connector.qformer_config.encoder_hidden_size", width, "the encoder's hidden_size", encoder.hidden_size
    )
    settings["qformer_config"] = queries


def _qwen(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    name = "hidden_size" if encoder.model_type == "qwen2_vl_vision" else "out_hidden_size"
    said = spec.encoder is not None and (
        spec.encoder.weights is not None or name in settings_of(spec.encoder, "encoder")
    )
    if not said:
        setattr(encoder, name, text.hidden_size)
    _require_equal(f"the encoder's {name}", getattr(encoder, name), "the llm's hidden_size", text.hidden_size)
    rope = dict(text.rope_parameters or {})
    if "mrope_section" not in rope:  # a quarter for time, the rest for height and width, as Qwen2-VL has it
        half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
        rest = (half - half // 4) // 2
        rope["mrope_section"] = [half - 2 * rest, rest, rest]
        text.rope_parameters = rope


def _mllama(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    from_weights = spec.encoder is not None and spec.encoder.weights is not None
    if spec.image.max_tiles is not None and from_weights:
        _require_equal("image.max_tiles", spec.image.max_tiles, "the encoder's max_num_tiles", encoder.max_num_tiles)
    elif spec.image.max_tiles is not None:
        encoder.max_num_tiles = spec.image.max_tiles
        sizes = itertools.product(range(1, encoder.max_num_tiles + 1), repeat=2)
        encoder.supported_aspect_ratios = [[w, h] for w, h in sizes if w * h <= encoder.max_num_tiles]
    width = encoder.hidden_size * (1 + len(encoder.intermediate_layers_indices))
    said = spec.encoder is not None and "vision_output_dim" in settings_of(spec.encoder, "encoder")
    if not (said or from_weights):
        encoder.vision_output_dim = width
    _require_equal(
        "encoder.config.vision_output_dim", encoder.vision_output_dim, "hidden_size × (1 + intermediate layers)", width
    )


def _fuyu(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    if spec.image.side_px is not None:
        settings.setdefault("image_size", spec.image.side_px)


def _nothing(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    pass


_SETTLED: Mapping[str, Callable[[Settings, Any, Any, GenerativeSpec], None]] = {
    "llava": _llava, "llava_next": _tiled_llava, "llava_onevision": _tiled_llava, "perception_lm": _perception_lm,
    "internvl": _internvl, "idefics2": _idefics2, "idefics3": _idefics3, "smolvlm": _idefics3, "blip2": _blip2,
    "qwen2_vl": _qwen, "qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "mllama": _mllama, "fuyu": _fuyu, "chameleon": _nothing,
}  # fmt: skip
