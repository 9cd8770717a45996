"""What must be known of a tower of timm before it is built: its width, its patches, its side."""

import logging
from dataclasses import dataclass
from typing import Any

from schemas.errors import InputError


@dataclass(frozen=True)
class Tower:
    """A tower of timm: how wide it is, how it cuts pictures, and how many tokens come before those of patches."""

    width: int
    patch_px: int
    side_px: int
    class_tokens: int
    look: dict[str, Any]


def tower_of(config: Any) -> Tower:
    """The tower that a `timm_wrapper` configuration names. Raises InputError where it cuts no patches."""
    import timm
    import torch

    arguments = dict(config.model_args or {})
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with torch.device("meta"):
            made: Any = timm.create_model(config.architecture, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # timm raises whatever the tower's own code raises
        raise InputError(f"encoder: timm cannot make {config.architecture!r} with {arguments}: {error}") from error
    finally:
        logging.disable(before)
    patches: Any = getattr(made, "patch_embed", None)
    if not hasattr(patches, "patch_size") or not hasattr(made, "num_prefix_tokens"):
        raise InputError(
            f"encoder: timm's {config.architecture} gives no tokens of patches; take a ViT, EVA-02, DINOv2 or SigLIP"
        )
    known = getattr(made, "pretrained_cfg", None) or {}
    look = {f"image_{name}": list(known[name]) for name in ("mean", "std") if name in known}
    side = patches.img_size[0] if patches.img_size else known["input_size"][-1]
    return Tower(int(made.embed_dim), int(patches.patch_size[0]), int(side), int(made.num_prefix_tokens), look)
