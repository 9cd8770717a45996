"""Contrastive losses in float32, whole or in chunks of rows.

Shapes: B pairs, D numbers per embedding, C rows of a chunk. Embeddings have unit length; `image_BD[i]` and `text_BD[i]`
belong together. Logits are computed outside autocast: bfloat16 has steps of 0.5 above 64, and the scale goes to 100.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def info_nce(image_BD: Tensor, text_BD: Tensor, scale: Tensor | float, chunk_rows: int | None = None) -> Tensor:
    """InfoNCE over pictures and captions, as CLIP has it (arXiv 2103.00020, figure 3); ln B where nothing is known.

    In chunks the B × B logits never stand in memory at once, neither forward nor backward.
    """
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD, text_BD = image_BD.float(), text_BD.float()
        total = image_BD.new_zeros(())
        columns_B = image_BD.new_full((len(text_BD),), -torch.inf)
        for first, rows_CD in _chunks(image_BD, chunk_rows):
            loss, chunk_columns_B = _recomputed(chunk_rows, _info_nce_rows, rows_CD, text_BD, scale, first)
            total = total + loss
            columns_B = torch.logaddexp(columns_B, chunk_columns_B)
        positives = (scale * (image_BD * text_BD).sum(1)).sum()
        return (total + columns_B.sum() - positives) / (2 * len(image_BD))


def pairwise_sigmoid(
    image_BD: Tensor, text_BD: Tensor, scale: Tensor | float, bias: Tensor | float, chunk_rows: int | None = None
) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, algorithm 1): every pair is its own yes or no; the sum over pairs by B."""
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD, text_BD = image_BD.float(), text_BD.float()
        total = image_BD.new_zeros(())
        for _, rows_CD in _chunks(image_BD, chunk_rows):
            total = total + _recomputed(chunk_rows, _all_negative, rows_CD, text_BD, scale, bias)
        # -log sigmoid(x) = softplus(-x) = softplus(x) - x: counting every pair as a negative, positives are x too high.
        positives = (scale * (image_BD * text_BD).sum(1) + bias).sum()
        return (total - positives) / len(image_BD)


def _info_nce_rows(rows_CD: Tensor, text_BD: Tensor, scale: Tensor | float, first: int) -> tuple[Tensor, Tensor]:
    """The pictures' side of some rows, summed, and these rows' share of the captions' normaliser."""
    logits_CB = scale * rows_CD @ text_BD.T
    right_C = torch.arange(first, first + len(rows_CD), device=rows_CD.device)
    return functional.cross_entropy(logits_CB, right_C, reduction="sum"), torch.logsumexp(logits_CB, 0)


def _all_negative(rows_CD: Tensor, text_BD: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    return functional.softplus(scale * rows_CD @ text_BD.T + bias).sum()


def _chunks(rows_BD: Tensor, chunk_rows: int | None) -> Iterator[tuple[int, Tensor]]:
    size = chunk_rows or len(rows_BD)
    for first in range(0, len(rows_BD), size):
        yield first, rows_BD[first : first + size]


def _recomputed(chunk_rows: int | None, function: Callable[..., Result], *arguments: object) -> Result:
    """A chunk's logits are computed again in the backward pass instead of being kept."""
    if not chunk_rows:
        return function(*arguments)
    result: Result = checkpoint(function, *arguments, use_reentrant=False)
    return result
