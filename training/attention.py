"""What most of a transformer's time goes into, as one product and one kernel; weights keep their names and shapes.

open_clip's blocks call `nn.MultiheadAttention`, which copies queries, keys and values into place and adds the causal
mask as numbers, for which there is no flash kernel; a convolution over three channels has slow kernels, too.
Shapes: B rows, C channels, H and W pixels, N tokens, D numbers each, A heads of E numbers, p pixels of a patch's side.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def with_quick_attention(network: Any) -> None:
    """Let an open_clip network's own blocks compute attention by `scaled_dot_product_attention` without copies."""
    from open_clip.transformer import ResidualAttentionBlock

    text = getattr(network, "text", network)
    mask_NN = getattr(text, "attn_mask", None)
    causal = set(text.transformer.modules()) if mask_NN is not None and _is_causal(mask_NN) else set()
    for block in network.modules():
        if type(block) is ResidualAttentionBlock and _is_plain(block.attn):
            block.attention = types.MethodType(_attention, block)
            block.is_causal = block in causal


def patches_of(conv: nn.Conv2d, floats_BCHW: Tensor) -> Tensor:
    """A convolution over patches that do not overlap, as a product: BDHW, H and W counted in patches then."""
    side = conv.kernel_size[0]
    high, wide = floats_BCHW.shape[2] // side, floats_BCHW.shape[3] // side
    cut_BCHW = floats_BCHW[:, :, : high * side, : wide * side]
    pixels_BHWCpp = cut_BCHW.reshape(*cut_BCHW.shape[:2], high, side, wide, side).permute(0, 2, 4, 1, 3, 5)
    return functional.linear(pixels_BHWCpp.flatten(3), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def _is_causal(mask_NN: Tensor) -> bool:
    barred_NN = torch.ones_like(mask_NN, dtype=torch.bool).triu(1)
    return mask_NN.ndim == 2 and torch.equal(mask_NN < 0, barred_NN)


def _is_plain(attention: nn.Module) -> bool:
    """Whether attention does nothing but what `_attention` does."""
    if not isinstance(attention, nn.MultiheadAttention):
        return False
    adds = attention.bias_k is not None or attention.add_zero_attn or attention.dropout
    return attention._qkv_same_embed_dim and attention.batch_first and not adds


def _attention(
    self: Any, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
) -> Tensor:
    """open_clip's ResidualAttentionBlock.attention of tokens on themselves; others, or other masks, go its own way."""
    if k_x is not None or v_x is not None or (attn_mask is not None and not (self.is_causal and attn_mask.ndim == 2)):
        theirs: Tensor = type(self).attention(self, q_x, k_x, v_x, attn_mask)
        return theirs
    attention = self.attn
    all_BND = functional.linear(q_x, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = all_BND.view(*q_x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    made_BANE = functional.scaled_dot_product_attention(queries, keys, values, is_causal=attn_mask is not None)
    made_BND: Tensor = attention.out_proj(made_BANE.transpose(1, 2).flatten(2))
    return made_BND
