"""Shorter inputs while most is learnt, whole ones at the end (CLIPA, arXiv 2305.07017), and masked patches (FLIP).

Weights keep their shapes: a smaller picture meets the position embeddings of the model, interpolated to its grid, so
that optimizer and checkpoint know nothing of it.
Shapes: B rows, C channels, H and W pixels, T tokens, N patches with the class token before them, D numbers each.
"""

import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import InputError
from schemas.towers import Phase
from training.attention import patches_of


def any_length(network: Any) -> None:
    """Make an open_clip network take smaller pictures and fewer tokens, where its towers can; results stay the same."""
    import open_clip
    import timm.layers
    from timm.models.vision_transformer import VisionTransformer

    visual = network.visual
    trunk: Any = getattr(visual, "trunk", None)
    plain = type(trunk) is VisionTransformer and trunk.pos_embed is not None and not trunk.dynamic_img_size
    if isinstance(visual, open_clip.transformer.VisionTransformer):
        visual._embeds = types.MethodType(_embeds, visual)
    elif plain:
        layers: Any = timm.layers
        trunk.dynamic_img_size, trunk.patch_embed.strict_img_size = True, False  # as its constructor would
        trunk.patch_embed.flatten, trunk.patch_embed.output_fmt = False, layers.Format.NHWC
    if type(network) is open_clip.CLIP:
        network.encode_text = types.MethodType(_encode_text, network)


def require_phases(network: Any, phases: Sequence[Phase]) -> None:
    """Raise InputError where the picture tower cannot do what a phase asks of it."""
    visual, trunk = network.visual, getattr(network.visual, "trunk", None)
    patches = hasattr(visual, "patch_dropout") or hasattr(trunk, "patch_drop")
    sizes = hasattr(visual, "patch_dropout") or getattr(trunk, "dynamic_img_size", False)
    native = _side(network)
    for phase in phases:
        if phase.patch_dropout and not patches:
            raise InputError("phases: patch_dropout: this picture tower has no patches to leave out")
        if phase.image_px not in (None, native) and not sizes:
            raise InputError(f"phases: image_px: this picture tower takes {native} pixels alone; ViT takes others")
        patch_px = _patch(network)
        if phase.image_px is not None and (phase.image_px > native or phase.image_px % patch_px):
            raise InputError(
                f"phases: image_px: {phase.image_px} is no multiple of {patch_px}, a patch, up to {native} pixels"
            )


def mask_patches(network: Any, share: float) -> None:
    """Leave out that share of the patches, chosen anew for each picture, while the network trains."""
    import timm.layers
    from open_clip.transformer import PatchDropout

    layers: Any = timm.layers
    visual, trunk = network.visual, getattr(network.visual, "trunk", None)
    if trunk is None and hasattr(visual, "patch_dropout"):
        visual.patch_dropout = PatchDropout(share) if share else nn.Identity()
    elif trunk is not None and hasattr(trunk, "rope"):  # EVA: its rotary positions go with the patches that stay
        trunk.patch_drop = layers.PatchDropoutWithIndices(share, trunk.num_prefix_tokens) if share else None
    elif trunk is not None and hasattr(trunk, "patch_drop"):
        trunk.patch_drop = layers.PatchDropout(share, trunk.num_prefix_tokens) if share else nn.Identity()


def shorter_pictures(pixels_BCHW: Tensor, side_px: int) -> Tensor:
    """uint8 squares made smaller, antialiased; those of that side as they are."""
    if pixels_BCHW.shape[-1] == side_px:
        return pixels_BCHW
    floats_BCHW = functional.interpolate(pixels_BCHW.float(), (side_px, side_px), mode="bilinear", antialias=True)
    return floats_BCHW.round().clamp(0, 255).to(torch.uint8)


def shorter_captions(tokens_BT: Tensor, tokens: int, pool_type: str = "argmax", eos_id: int | None = None) -> Tensor:
    """The first tokens of each caption; where the end token is what is pooled, and was cut off, it comes last."""
    cut_BT = tokens_BT[:, :tokens]
    if tokens_BT.shape[1] <= tokens or pool_type not in ("argmax", "eos"):
        return cut_BT
    end_B = tokens_BT.amax(1) if pool_type == "argmax" else torch.full_like(tokens_BT[:, 0], int(eos_id or 0))
    lost_B = ~(cut_BT == end_B[:, None]).any(1)
    return torch.cat([cut_BT[:, :-1], torch.where(lost_B, end_B, cut_BT[:, -1])[:, None]], 1)


def resized_positions(positions_ND: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Position embeddings of a class token and a grid of patches, for another grid (bicubic, as open_clip has it)."""
    if grid == wanted:
        return positions_ND
    class_1D, patches_ND = positions_ND[:1], positions_ND[1:]
    patches_1DHW = patches_ND.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    patches_1DHW = functional.interpolate(patches_1DHW, wanted, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([class_1D, patches_1DHW.flatten(2)[0].T])


def _embeds(self: Any, floats_BCHW: Tensor) -> Tensor:
    """open_clip's VisionTransformer._embeds, for a grid of any size."""
    patches_BDHW = patches_of(self.conv1, floats_BCHW)
    grid = (int(patches_BDHW.shape[2]), int(patches_BDHW.shape[3]))
    patches_BND = patches_BDHW.flatten(2).permute(0, 2, 1)
    class_B1D = self.class_embedding.view(1, 1, -1).expand(len(patches_BND), -1, -1).to(patches_BND.dtype)
    tokens_BND = torch.cat([class_B1D, patches_BND], dim=1)
    positions_ND = resized_positions(self.positional_embedding, tuple(self.grid_size), grid)
    return self.ln_pre(self.patch_dropout(tokens_BND + positions_ND.to(tokens_BND.dtype)))


def _encode_text(self: Any, tokens_BT: Tensor, normalize: bool = False) -> Tensor:
    """open_clip's CLIP.encode_text, for up to as many tokens as the model has positions."""
    from open_clip.transformer import text_global_pool

    dtype, count = self.transformer.get_cast_dtype(), tokens_BT.shape[1]
    words_BTD = self.token_embedding(tokens_BT).to(dtype) + self.positional_embedding[:count].to(dtype)
    mask_TT = None if self.attn_mask is None else self.attn_mask[:count, :count]
    words_BTD = self.ln_final(self.transformer(words_BTD, attn_mask=mask_TT))
    text_BD = text_global_pool(words_BTD, tokens_BT, self.text_pool_type, eos_token_id=self.text_eos_id)
    if isinstance(self.text_projection, nn.Linear):
        text_BD = self.text_projection(text_BD)
    elif self.text_projection is not None:
        text_BD = text_BD @ self.text_projection
    return functional.normalize(text_BD, dim=-1) if normalize else text_BD


def _side(network: Any) -> int:
    size: Any = network.visual.image_size
    return int(size if isinstance(size, int) else size[0])


def _patch(network: Any) -> int:
    trunk: Any = getattr(network.visual, "trunk", None)
    size: Any = getattr(network.visual, "patch_size", None) or getattr(
        getattr(trunk, "patch_embed", None), "patch_size", 1
    )
    return int(size if isinstance(size, int) else size[0])
