"""A trained model as transformers has it: CLIPModel for ViTs with a class token, SiglipModel for SigLIP's towers.

open_clip's own format is what `save_model` writes. What transformers cannot express is refused, and what was written is
loaded again and held against the model before it counts.
Shapes: B pairs, C channels, H and W pixels, T tokens, D numbers per embedding.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.errors import RunError
from training.export_weights import clip_of, siglip_of
from training.model import Model

MOST_APART = 1e-5  # of the cosines before and after; logits are so many times a scale
_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # as OpenAI calls them


def export_transformers(model: Model, folder: Path) -> None:
    """Write model, configuration and processor so that `AutoModel` and `AutoProcessor` of transformers load them.

    Raises InputError where transformers has no such model, RunError where what was written gives other vectors.
    """
    made = _made(*expressed(model))
    _require_equal(model, made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        made.save_pretrained(fresh)
        _processor(model).save_pretrained(fresh)
        folder.mkdir(exist_ok=True)
        for path in sorted(Path(fresh).iterdir()):
            path.replace(folder / path.name)


def expressed(model: Model) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights as transformers names them. Raises InputError where it has no such model."""
    siglip = "timm_model_name" in model.config["model_cfg"]["vision_cfg"]
    return siglip_of(model) if siglip else clip_of(model)


def _made(config: Any, weights: Mapping[str, Tensor]) -> Any:
    from transformers import CLIPConfig, CLIPModel, SiglipModel

    made = (CLIPModel if isinstance(config, CLIPConfig) else SiglipModel)(config).eval()
    made.load_state_dict({name: value.detach().cpu().float() for name, value in weights.items()}, strict=True)
    return made


def _require_equal(model: Model, made: Any) -> None:
    """Hold both against each other on pictures of noise and a few captions. Raises RunError where they are apart."""
    draw = torch.Generator().manual_seed(0)
    pixels_BCHW = torch.randint(0, 256, (3, 3, model.side_px, model.side_px), generator=draw, dtype=torch.uint8)
    tokens_BT = model.tokenize(["a photo of a cat", "two", "a red disc, and a blue square!"])
    training = model.network.training
    model.network.eval()
    with torch.inference_mode():
        cosines = model.embed_pictures(pixels_BCHW) @ model.embed_captions(tokens_BT).T
        floats_BCHW = model.normalised(pixels_BCHW).cpu()
        found = made(input_ids=tokens_BT, pixel_values=floats_BCHW)
        apart = float((found.image_embeds @ found.text_embeds.T - cosines.cpu()).abs().max())
    model.network.train(training)
    if not apart <= MOST_APART:
        raise RunError(f"export: transformers' model gives other vectors than ours (cosines up to {apart:.2g} apart)")


def _processor(model: Model) -> Any:
    """Pictures as schemas/picture_transform.py makes them, captions by the model's tokenizer."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    pictures = model.config["preprocess_cfg"]
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": model.side_px},
        crop_size={"height": model.side_px, "width": model.side_px},
        image_mean=list(pictures["mean"]),
        image_std=list(pictures["std"]),
        resample=3,
    )
    tokenizer = getattr(model.tokenize, "tokenizer", None) or _clip_tokenizer(model)
    tokenizer.model_max_length = model.network.context_length
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def _clip_tokenizer(model: Model) -> Any:
    """open_clip's SimpleTokenizer as CLIPTokenizer."""
    from transformers import CLIPTokenizer

    ours: Any = model.tokenize
    merges = [pair for pair, _ in sorted(ours.bpe_ranks.items(), key=lambda item: item[1])]
    # Where the last token is pooled, captions must be filled up as open_clip fills them: with token 0.
    filled = {"pad_token": ours.decoder[0]} if _pools_last(model) else {}
    vocabulary = {_SPECIAL.get(token, token): number for token, number in ours.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **filled)


def _pools_last(model: Model) -> bool:
    return bool(model.config["model_cfg"]["text_cfg"].get("pool_type") == "last")
