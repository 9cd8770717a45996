"""How the parts of each family fit: what follows from the others is filled in, what does not fit is refused.

So a specification says each thing once: tokens per picture, and the width that a projector meets, follow. Where both
sides say their width and they differ, both are named.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import InputError
from schemas.generative import GenerativeSpec
from training.generative.processors import FIRST_TILES, MOST_ROWS, ONEVISION_TILES, grids
from training.generative.sources import settings_of

Settings = dict[str, Any]
_BEFORE_PATCHES: Mapping[str, Callable[[Any], int]] = {
    "clip_vision_model": lambda _: 1,
    "vit": lambda _: 1,
    "dinov2": lambda _: 1,
    "dinov2_with_registers": lambda config: 1 + int(config.num_register_tokens),
    "siglip_vision_model": lambda _: 0,
}
"""Tokens that an encoder puts before those of the patches."""


def require_equal(one: str, this: int, other: str, that: int) -> None:
    """Raises InputError that names both."""
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
    for name, value in canvases(spec.family, spec.image.max_tiles, encoder.image_size).items():
        settings.setdefault(name, value)


def canvases(family: str, most: int | None, side: int) -> Settings:
    """On which canvases of tiles a LLaVA lays a picture."""
    if family == "llava_next":
        return {"image_grid_pinpoints": grids(most or FIRST_TILES, side, one=False)}
    tiles = f"anyres_max_{most or ONEVISION_TILES}"
    return {"image_grid_pinpoints": grids(most or MOST_ROWS**2, side, one=True), "vision_aspect_ratio": tiles}


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
        require_equal("image.max_tiles", spec.image.max_tiles, "the quarters that idefics2 makes of a picture", 4)
    queries = dict(settings.get("perceiver_config") or {})
    width = queries.setdefault("hidden_size", text.hidden_size)
    require_equal("connector.perceiver_config.hidden_size", width, "the llm's hidden_size", text.hidden_size)
    queries.setdefault("rms_norm_eps", getattr(text, "rms_norm_eps", 1e-6))
    settings["perceiver_config"] = queries


def _idefics3(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    along, shrink = encoder.image_size // encoder.patch_size, settings.get("scale_factor", 2)
    if along % shrink:
        raise InputError(f"connector.scale_factor: is {shrink}, which does not divide {along} patches along a side")


def _blip2(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    queries = dict(settings.get("qformer_config") or {})
    width = queries.setdefault("encoder_hidden_size", encoder.hidden_size)
    require_equal(
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
    require_equal(f"the encoder's {name}", getattr(encoder, name), "the llm's hidden_size", text.hidden_size)
    rope = dict(text.rope_parameters or {})
    if "mrope_section" not in rope:  # a quarter for time, the rest for height and width, as Qwen2-VL has it
        half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
        rest = (half - half // 4) // 2
        rope["mrope_section"] = [half - 2 * rest, rest, rest]
        text.rope_parameters = rope


def _mllama(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    from_weights = spec.encoder is not None and spec.encoder.weights is not None
    if spec.image.max_tiles is not None and from_weights:
        require_equal("image.max_tiles", spec.image.max_tiles, "the encoder's max_num_tiles", encoder.max_num_tiles)
    elif spec.image.max_tiles is not None:
        encoder.max_num_tiles = spec.image.max_tiles
        sizes = itertools.product(range(1, encoder.max_num_tiles + 1), repeat=2)
        encoder.supported_aspect_ratios = [[w, h] for w, h in sizes if w * h <= encoder.max_num_tiles]
    width = encoder.hidden_size * (1 + len(encoder.intermediate_layers_indices))
    said = spec.encoder is not None and "vision_output_dim" in settings_of(spec.encoder, "encoder")
    if not (said or from_weights):
        encoder.vision_output_dim = width
    require_equal(
        "encoder.config.vision_output_dim", encoder.vision_output_dim, "hidden_size × (1 + intermediate layers)", width
    )


def _fuyu(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    if spec.image.side_px is not None:
        settings.setdefault("image_size", spec.image.side_px)


def _nothing(settings: Settings, encoder: Any, text: Any, spec: GenerativeSpec) -> None:
    pass


SETTLED: Mapping[str, Callable[[Settings, Any, Any, GenerativeSpec], None]] = {
    "llava": _llava, "llava_next": _tiled_llava, "llava_onevision": _tiled_llava, "perception_lm": _perception_lm,
    "internvl": _internvl, "idefics2": _idefics2, "idefics3": _idefics3, "smolvlm": _idefics3, "blip2": _blip2,
    "qwen2_vl": _qwen, "qwen2_5_vl": _qwen, "qwen3_vl": _qwen, "mllama": _mllama, "fuyu": _fuyu, "chameleon": _nothing,
}  # fmt: skip
"""By the family's name: changes settings and the configurations of the parts in place."""
