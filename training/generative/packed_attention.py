"""Attention of packed rows sample by sample: transformers makes a dense mask for them, for which no quick kernel is.

Shapes: B rows of L tokens, A heads of E numbers; N samples, the rests of rows among them; T = B · L tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_NAME = "pairmill_packed"
_OF_ATTENTION = ("sliding_window", "attn_logit_softcapping")


class PackedAttention:
    """Lets the language model of packed rows see each sample alone, without a mask.

    Where the model's attention is more than causal (windows, capped logits), transformers' own way stays.
    """

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface

        self._begins_N1: Tensor | None = None
        self._longest = 0
        decoder = model.get_decoder()
        if _is_plain(decoder.config):
            AttentionInterface.register(_NAME, _attention)
            decoder.set_attn_implementation(_NAME)
            decoder.register_forward_pre_hook(self._add, with_kwargs=True)

    @contextmanager
    def of(self, begins_N1: Tensor | None, longest: int) -> Iterator[None]:
        """While it is open, the model's rows are samples that begin so, int32, of the rows one after the other."""
        self._begins_N1, self._longest = begins_N1, longest
        try:
            yield
        finally:
            self._begins_N1 = None

    def _add(self, _module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return given, named | {"cu_seq_lens_q": self._begins_N1, "max_length_q": self._longest}


def begins_of(positions_BL: Tensor) -> tuple[Tensor, int]:
    """Where samples begin in rows one after the other, int32 with the end of all behind; and a bound of their length.

    The bound is a power of two, so that what is compiled for it fits other batches.
    """
    begins_N = torch.nonzero(positions_BL.flatten() == 0).flatten()
    begins_N1 = functional.pad(begins_N, (0, 1), value=positions_BL.numel()).int()
    return begins_N1, 1 << (int(begins_N1.diff().max()) - 1).bit_length()


def _is_plain(config: Any) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ())
    return kinds <= {"full_attention"} and not any(getattr(config, name, None) for name in _OF_ATTENTION)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """transformers' attention function: BALE each → BLAE."""
    begins_N1, scale = given["cu_seq_lens_q"], given.get("scaling")
    rows, heads, length, size = query.shape
    groups = heads // key.shape[1]
    # Rotated by float32 tables, queries and keys are float32 again; values are as autocast has made them.
    flat = [each.transpose(1, 2).reshape(rows * length, -1, size).to(value.dtype) for each in (query, key, value)]
    if query.is_cuda and value.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        longest = given["max_length_q"]
        queries, keys, values = flat[0], *(each.repeat_interleave(groups, 1) for each in flat[1:])
        bounds = (begins_N1, begins_N1, longest, longest)
        seen: Any = varlen_attn(queries, keys, values, *bounds, scale=scale, window_size=(-1, 0))
    else:
        seen = _one_by_one(*flat, begins_N1, scale)
    return seen.view(rows, length, heads, size), None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _one_by_one(queries_TAE: Tensor, keys: Tensor, values: Tensor, begins_N1: Tensor, scale: float | None) -> Tensor:
    lengths = begins_N1.diff().tolist()
    of_samples = (torch.split(each.transpose(0, 1), lengths, 1) for each in (queries_TAE, keys, values))
    seen = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        for q, k, v in zip(*of_samples, strict=True)
    ]
    return torch.cat(seen, 1).transpose(0, 1)
