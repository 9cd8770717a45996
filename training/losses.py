"""Contrastive losses in float32, whole or in chunks of rows, on one rank or across several.

Shapes: b pairs of this rank, B pairs of all (B = b on one rank), D numbers per embedding, C rows of a chunk. Embeddings
have unit length; `image_bD[i]` and `text_bD[i]` belong together. Logits are computed outside autocast: bfloat16 has
steps of 0.5 above 64, and the scale goes to 100.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.ranks import ALONE, Ranks, gathered, passed_on, swapped

Result = TypeVar("Result")


def info_nce(
    image_bD: Tensor,
    text_bD: Tensor,
    scale: Tensor | float,
    chunk_rows: int | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """InfoNCE over pictures and captions, as CLIP has it (arXiv 2103.00020, figure 3); ln B where nothing is known.

    In chunks the logits never stand in memory at once, neither forward nor backward. Across ranks this is one rank's
    share, whose mean over the ranks is the loss: captions are gathered, and each rank computes the logits of its own
    pictures alone, once for both sides; of the captions' normalisers the ranks exchange their parts.
    """
    with torch.autocast(image_bD.device.type, enabled=False):
        image_bD, text_bD = image_bD.float(), text_bD.float()
        text_BD = gathered(text_bD, ranks)
        total = image_bD.new_zeros(())
        columns_B = image_bD.new_full((len(text_BD),), -torch.inf)
        for first, rows_CD in _chunks(image_bD, chunk_rows):
            right = ranks.rank * len(image_bD) + first
            loss, chunk_columns_B = _recomputed(chunk_rows, _info_nce_rows, rows_CD, text_BD, scale, right)
            total = total + loss
            columns_B = torch.logaddexp(columns_B, chunk_columns_B)
        columns_b = torch.logsumexp(swapped(columns_B.view(ranks.count, -1), ranks), 0)
        positives = (scale * (image_bD * text_bD).sum(1)).sum()
        return (total + columns_b.sum() - positives) / (2 * len(image_bD))


def pairwise_sigmoid(
    image_bD: Tensor,
    text_bD: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    chunk_rows: int | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, algorithm 1): every pair is its own yes or no; the sum over pairs by B.

    Across ranks this is one rank's share, whose mean over the ranks is the loss: the captions go round from neighbour
    to neighbour (section 3.3 there), so that no rank ever holds those of all.
    """
    with torch.autocast(image_bD.device.type, enabled=False):
        image_bD, text_bD = image_bD.float(), text_bD.float()
        total, others_bD = image_bD.new_zeros(()), text_bD
        for turn in range(ranks.count):
            others_bD = passed_on(others_bD) if turn else others_bD
            for _, rows_CD in _chunks(image_bD, chunk_rows):
                total = total + _recomputed(chunk_rows, _all_negative, rows_CD, others_bD, scale, bias)
        # -log sigmoid(x) = softplus(-x) = softplus(x) - x: counting every pair as a negative, positives are x too high.
        positives = (scale * (image_bD * text_bD).sum(1) + bias).sum()
        return (total - positives) / len(image_bD)


def _info_nce_rows(rows_CD: Tensor, text_BD: Tensor, scale: Tensor | float, right: int) -> tuple[Tensor, Tensor]:
    """The pictures' side of some rows, summed, and these rows' share of the captions' normaliser."""
    logits_CB = scale * rows_CD @ text_BD.T
    right_C = torch.arange(right, right + len(rows_CD), device=rows_CD.device)
    return functional.cross_entropy(logits_CB, right_C, reduction="sum"), torch.logsumexp(logits_CB, 0)


def _all_negative(rows_CD: Tensor, text_BD: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    return functional.softplus(scale * rows_CD @ text_BD.T + bias).sum()


def _chunks(rows_bD: Tensor, chunk_rows: int | None) -> Iterator[tuple[int, Tensor]]:
    size = chunk_rows or len(rows_bD)
    for first in range(0, len(rows_bD), size):
        yield first, rows_bD[first : first + size]


def _recomputed(chunk_rows: int | None, function: Callable[..., Result], *arguments: object) -> Result:
    """A chunk's logits are computed again in the backward pass instead of being kept."""
    if not chunk_rows:
        return function(*arguments)
    result: Result = checkpoint(function, *arguments, use_reentrant=False)
    return result
