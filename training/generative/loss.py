"""The loss of answers: cross-entropy of labelled tokens alone, in chunks, so that logits never stand in memory at once.

Shapes: B rows, L tokens, D numbers of a hidden state, N labelled tokens, C of a chunk, V tokens of the vocabulary.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.generative.collation import IGNORED
from training.ranks import ALONE, Ranks


def answer_loss(
    hidden_BLD: Tensor,
    labels_BL: Tensor,
    head: nn.Module,
    label_tokens: int,
    *,
    chunk_rows: int = 1024,
    ranks: Ranks = ALONE,
    compiled: bool = False,
) -> Tensor:
    """Mean of the next token's cross-entropy over `label_tokens`, those of the whole batch: all its parts, all ranks.

    Parts are summed, and across ranks this is one rank's share, whose mean over the ranks is the loss: as DDP and FSDP
    take the mean of gradients, each answer's token weighs the same wherever it lies. `head` makes logits of hidden
    states. Logits are float32; at most `chunk_rows` × V of them exist. Call the model below its head for the hidden
    states, with use_cache=False: a cache joins samples that are packed apart. `compiled` makes one kernel of what
    follows the logits.
    """
    hidden_ND, labels_N = labelled(hidden_BLD, labels_BL)
    if not len(labels_N):
        return hidden_BLD.sum() * 0.0
    learnt = [weight for weight in head.parameters() if weight.requires_grad]
    total: Tensor = _Chunked.apply(head, _compiled() if compiled else _summed, chunk_rows, labels_N, hidden_ND, *learnt)
    return total * (ranks.count / label_tokens)


def labelled(hidden_BLD: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states that tell a token to learn, ND, and those tokens, N.

    Labels that lie on the CPU spare a GPU the wait until it can say how many there are.
    """
    next_BL = functional.pad(labels_BL[:, 1:], (0, 1), value=IGNORED)
    places_N = torch.nonzero(next_BL.flatten() != IGNORED).flatten()
    told_N = next_BL.flatten()[places_N]
    places_N, told_N = (each.to(hidden_BLD.device, non_blocking=True) for each in (places_N, told_N))
    return hidden_BLD.flatten(0, 1)[places_N], told_N


class _Chunked(torch.autograd.Function):
    """The summed cross-entropy, whose gradients are computed with it: neither are logits kept nor made again for them.

    As in Liger's kernels (arXiv 2410.10989, section 3.2), for any head.
    """

    @staticmethod
    def forward(
        ctx: Any, head: nn.Module, summed: Any, chunk_rows: int, labels_N: Tensor, hidden_ND: Tensor, *learnt: Tensor
    ) -> Tensor:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        towards_ND = torch.empty_like(hidden_ND)
        towards_learnt = [torch.zeros_like(weight) for weight in learnt]
        for first in range(0, len(labels_N), chunk_rows):
            chunk = slice(first, first + chunk_rows)
            with torch.enable_grad():
                hidden_CD = hidden_ND[chunk].detach().requires_grad_()
                loss = summed(hidden_CD, labels_N[chunk], head)
            towards_ND[chunk], *towards = torch.autograd.grad(loss, [hidden_CD, *learnt])
            for whole, part in zip(towards_learnt, towards, strict=True):
                whole += part
            total += loss.detach()
        ctx.save_for_backward(towards_ND, *towards_learnt)
        return total

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """Each gradient, times that of the loss."""
        return None, None, None, None, *(towards * given[0] for towards in ctx.saved_tensors)


def _summed(hidden_CD: Tensor, labels_C: Tensor, head: nn.Module) -> Tensor:
    return functional.cross_entropy(head(hidden_CD).float(), labels_C, reduction="sum")


@functools.cache
def _compiled() -> Any:
    return torch.compile(_summed, dynamic=True)
