"""A specification's parts as one configuration of transformers."""

from collections.abc import Mapping
from typing import Any

from schemas.errors import InputError
from schemas.generative import GenerativeSpec, Images, Part
from training.generative.families import Family
from training.generative.fitting import SETTLED, Settings, canvases, require_equal
from training.generative.sources import as_type, made_config, own_tower, require_names, settings_of, stored_config


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
    SETTLED[family.name](settings, encoder, text, spec)
    if spec.image.side_px is not None and encoder is not None:
        require_equal("image.side_px", spec.image.side_px, "the encoder's own side", _side_of(encoder))
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
    # transformers' default for BLIP-2 is 1e-10: new weights would see nothing.
    range_ = {"initializer_range": 0.02} if family.encoder_type == "blip_2_vision_model" else {}
    return part_config(spec.encoder, "encoder", family, side | range_)


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


def set_images(config: Any, family: Family, images: Images) -> None:
    """Change a whole model's configuration to what is asked of pictures. Raises InputError where it cannot be so."""
    encoder: Any = getattr(config, "vision_config", None) or getattr(config, "vq_config", None)
    if images.side_px is not None:
        own = config.image_size if encoder is None else _side_of(encoder)
        require_equal("image.side_px", images.side_px, "the model's own side", own)
    if images.max_tiles is not None and hasattr(config, "image_grid_pinpoints"):
        for name, value in canvases(family.name, images.max_tiles, _side_of(encoder)).items():
            setattr(config, name, value)
    elif images.max_tiles is not None and hasattr(encoder, "max_num_tiles"):
        require_equal("image.max_tiles", images.max_tiles, "the model's max_num_tiles", encoder.max_num_tiles)
