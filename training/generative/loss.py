"""The loss of answers: cross-entropy of labelled tokens alone, in chunks, so that logits never stand in memory at once.

Shapes: B rows, L tokens, D numbers of a hidden state, N labelled tokens, C of a chunk, V tokens of the vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.generative.collation import IGNORED
from training.ranks import ALONE, Ranks

Head = Callable[[Tensor], Tensor]
"""From hidden states […, D] to logits […, V]: a model's get_output_embeddings()."""


def answer_loss(
    hidden_BLD: Tensor,
    labels_BL: Tensor,
    head: Head,
    label_tokens: int,
    *,
    chunk_rows: int = 1024,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean of the next token's cross-entropy over `label_tokens`, those of the whole batch: all its parts, all ranks.

    Parts are summed, and across ranks this is one rank's share, whose mean over the ranks is the loss: as DDP and FSDP
    take the mean of gradients, each answer's token weighs the same wherever it lies. Logits are float32; at most
    `chunk_rows` × V of them exist, and they are computed again in the backward pass. Call the model below its head for
    the hidden states, with use_cache=False: a cache joins samples that are packed apart.
    """
    hidden_ND, labels_N = labelled(hidden_BLD, labels_BL)
    total = hidden_BLD.sum() * 0.0 if not len(labels_N) else hidden_BLD.new_zeros((), dtype=torch.float32)
    for first in range(0, len(labels_N), chunk_rows):
        chunk = slice(first, first + chunk_rows)
        total = total + checkpoint(_summed, hidden_ND[chunk], labels_N[chunk], head, use_reentrant=False)
    return total * (ranks.count / label_tokens)


def labelled(hidden_BLD: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states that tell a token to learn, ND, and those tokens, N."""
    next_BL = labels_BL[:, 1:]
    told_BL = next_BL != IGNORED
    return hidden_BLD[:, :-1][told_BL], next_BL[told_BL]


def _summed(hidden_CD: Tensor, labels_C: Tensor, head: Head) -> Tensor:
    return functional.cross_entropy(head(hidden_CD).float(), labels_C, reduction="sum")
