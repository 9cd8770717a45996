"""A processor for each family: pictures and conversations → tokens and tensors, as its model counts them.

`config` is the whole model's configuration, `look` the mean and deviation that the encoder's pixels have (or nothing:
the family's own), `tokenizer` one that has the family's special tokens.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from schemas.generative import Images

Look = Mapping[str, Any]
MOST_ROWS = 6  # of tiles, as LLaVA-OneVision has them
FIRST_TILES, ONEVISION_TILES, _INTERNVL_TILES, _PERCEPTION_TILES, _IDEFICS_TILES = 4, 9, 12, 36, 16


def _side(config: Any) -> int:
    side = config.vision_config.image_size
    return int(side if isinstance(side, int) else side[0])


def _patch(config: Any) -> int:
    patch = config.vision_config.patch_size
    return int(patch if isinstance(patch, int) else patch[0])


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _frames(images: Images) -> dict[str, Any]:
    """Videos come with the frames already chosen; whoever wants the processor to choose says `do_sample_frames`."""
    return {"num_frames": images.frames, "do_sample_frames": False}


def grids(most: int, side: int, *, one: bool) -> list[list[int]]:
    """Heights and widths in pixels of the canvases of up to `most` tiles; `one` allows that of a single tile."""
    sizes = itertools.product(range(1, MOST_ROWS + 1), repeat=2)
    return [[rows * side, columns * side] for rows, columns in sizes if 1 - one < rows * columns <= most]


def llava(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """LLaVA-1.5: one picture, filled up to a square (arXiv 2310.03744)."""
    from transformers import LlavaImageProcessor, LlavaProcessor

    side = _side(config)
    pictures = LlavaImageProcessor(size={"shortest_edge": side}, crop_size=_square(side), do_pad=True, **look)
    return LlavaProcessor(
        pictures, tokenizer, _patch(config), config.vision_feature_select_strategy,
        num_additional_image_tokens=config.image_seq_length - (side // _patch(config)) ** 2 + _dropped(config),
    )  # fmt: skip


def llava_next(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """LLaVA-1.6: an overview and tiles of the canvas that fits best."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    side = _side(config)
    pictures = LlavaNextImageProcessor(
        size={"shortest_edge": side}, crop_size=_square(side), image_grid_pinpoints=config.image_grid_pinpoints, **look
    )
    return LlavaNextProcessor(
        pictures, tokenizer, _patch(config), config.vision_feature_select_strategy,
        num_additional_image_tokens=config.image_seq_length - (side // _patch(config)) ** 2 + _dropped(config),
    )  # fmt: skip


def _dropped(config: Any) -> int:
    """The class token, which the strategy `default` takes away."""
    return int(config.vision_feature_select_strategy == "default")


def llava_onevision(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """LLaVA-OneVision: tiles of one picture, several pictures without tiles, frames of a video."""
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    side = _side(config)
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=_square(side), image_grid_pinpoints=config.image_grid_pinpoints, **look),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=_square(side), **_frames(images), **look),
        num_image_tokens=(side // _patch(config)) ** 2,
        vision_feature_select_strategy="full",  # of what num_image_tokens counts, there is nothing to drop
        vision_aspect_ratio=config.vision_aspect_ratio,
    )


def perception_lm(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """PerceptionLM: an overview and tiles, or one square, for any tower of timm."""
    from transformers import PerceptionLMImageProcessor, PerceptionLMProcessor, PerceptionLMVideoProcessor

    from training.generative.timm_towers import tower_of

    tower = tower_of(config.vision_config)
    pictures = PerceptionLMImageProcessor(
        vision_input_type="vanilla" if images.mode == "single" else "thumb+tile",
        tile_size=tower.side_px, size=_square(tower.side_px),
        max_num_tiles=images.max_tiles or _PERCEPTION_TILES, **look,
    )  # fmt: skip
    videos = PerceptionLMVideoProcessor(size=_square(tower.side_px), **_frames(images), **look)
    return PerceptionLMProcessor(
        videos, pictures, tokenizer, patch_size=tower.patch_px, pooling_ratio=config.projector_pooling_ratio
    )


def internvl(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """InternVL: tiles of the canvas that fits best and an overview; `single` is the canvas of one tile."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    side, most = _side(config), 1 if images.mode == "single" else images.max_tiles or _INTERNVL_TILES
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=_square(side), crop_to_patches=True, max_patches=most, **look),
        tokenizer,
        InternVLVideoProcessor(size=_square(side), **_frames(images), **look),
        image_seq_length=config.image_seq_length,
    )


def idefics2(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Idefics2: pictures in their own shape, seen by learned queries; `tiles` adds four quarters."""
    from transformers import Idefics2ImageProcessor

    from training.generative.exact_processors import Idefics2Processor

    side = _side(config)
    pictures = Idefics2ImageProcessor(
        size={"shortest_edge": min(side, round(side * 378 / 980)), "longest_edge": side},
        do_image_splitting=images.mode == "tiles", **look,
    )  # fmt: skip
    return Idefics2Processor(pictures, tokenizer, image_seq_len=config.perceiver_config.resampler_n_latents)


def _idefics3_pictures(config: Any, images: Images) -> dict[str, Any]:
    side = _side(config)
    along = math.isqrt(images.max_tiles or _IDEFICS_TILES)
    longest = side if images.mode == "single" else along * side
    return {
        "size": {"longest_edge": longest}, "max_image_size": {"longest_edge": side},
        "do_image_splitting": images.mode != "single",
    }  # fmt: skip


def _idefics3_tokens(config: Any) -> int:
    return int((_side(config) // _patch(config)) ** 2 / config.scale_factor**2)


def idefics3(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Idefics3 and SmolVLM 1: tiles and an overview, shuffled to fewer tokens."""
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    pictures = Idefics3ImageProcessor(**_idefics3_pictures(config, images), **look)
    return Idefics3Processor(pictures, tokenizer, image_seq_len=_idefics3_tokens(config))


def smolvlm(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """SmolVLM 2: as Idefics3, and videos. Raises ImportError where num2words lacks, of which it makes prompts."""
    from transformers import SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    side = _side(config)
    videos = SmolVLMVideoProcessor(
        size={"longest_edge": side}, max_image_size={"longest_edge": side}, **_frames(images), **look
    )
    pictures = SmolVLMImageProcessor(**_idefics3_pictures(config, images), **look)
    return SmolVLMProcessor(pictures, tokenizer, videos, image_seq_len=_idefics3_tokens(config))


def blip2(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """BLIP-2: one picture as so many tokens as there are queries, which the chat template writes."""
    from transformers import Blip2Processor, BlipImageProcessor

    return Blip2Processor(BlipImageProcessor(size=_square(_side(config)), **look), tokenizer)


def _qwen(config: Any, images: Images, look: Look) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of pictures, and of videos."""
    vision = config.vision_config
    unit = (vision.patch_size * vision.spatial_merge_size) ** 2
    pixels = {"shortest_edge": images.min_pixels or 4 * unit, "longest_edge": images.max_pixels or 1280 * unit}
    cut = {
        "patch_size": vision.patch_size, "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size, **look,
    }  # fmt: skip
    frames = _frames(images) | {"fps": None, "min_frames": 1, "cap_pixels_per_frame": True}
    return {"size": pixels} | cut, {"size": dict(pixels)} | cut | frames


def qwen2_vl(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Qwen2-VL and 2.5: pictures of any shape, within bounds of pixels."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    pictures, videos = _qwen(config, images, look)
    return Qwen2VLProcessor(Qwen2VLImageProcessor(**pictures), tokenizer, Qwen2VLVideoProcessor(**videos))


def qwen2_5_vl(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Qwen2.5-VL: the same pictures, and times of frames."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pictures, videos = _qwen(config, images, look)
    return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**pictures), tokenizer, Qwen2VLVideoProcessor(**videos))


def qwen3_vl(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Qwen3-VL: the same pictures, pixels between -1 and 1."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pictures, videos = _qwen(config, images, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | dict(look))
    return Qwen3VLProcessor(Qwen2VLImageProcessor(**pictures), tokenizer, Qwen3VLVideoProcessor(**videos))


def mllama(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Llama 3.2-Vision: tiles of the canvas that fits best, for layers of cross-attention."""
    from transformers import MllamaImageProcessor, MllamaProcessor

    most = config.vision_config.max_num_tiles
    return MllamaProcessor(MllamaImageProcessor(size=_square(_side(config)), max_image_tiles=most, **look), tokenizer)


def fuyu(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Fuyu: raw patches of pictures of any shape within a frame, a line of tokens for each row."""
    from transformers import FuyuImageProcessor

    from training.generative.exact_processors import FuyuProcessor

    return FuyuProcessor(
        FuyuImageProcessor(size=_square(config.image_size), patch_size=_square(config.patch_size), **look), tokenizer
    )


def chameleon(config: Any, tokenizer: Any, images: Images, look: Look) -> Any:
    """Chameleon: one square of tokens of the vocabulary, between a token of beginning and one of end."""
    from transformers import ChameleonImageProcessor, ChameleonProcessor

    side, halvings = config.vq_config.resolution, len(config.vq_config.channel_multiplier) - 1
    pictures = ChameleonImageProcessor(size={"shortest_edge": side}, crop_size=_square(side), **look)
    return ChameleonProcessor(pictures, tokenizer, image_seq_length=(side >> halvings) ** 2)


PROCESSORS: Mapping[str, Callable[[Any, Any, Images, Look], Any]] = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "perception_lm": perception_lm,
    "internvl": internvl, "idefics2": idefics2, "idefics3": idefics3, "smolvlm": smolvlm, "blip2": blip2,
    "qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl, "mllama": mllama, "fuyu": fuyu,
    "chameleon": chameleon,
}  # fmt: skip
"""By the family's name."""
