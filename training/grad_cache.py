"""GradCache (arXiv 2101.06983): the gradient of a batch of any size, with the memory of a micro-batch.

The towers embed all micro-batches without keeping anything; the loss of the whole batch gives the gradient of each
embedding; then each micro-batch is embedded again and its gradient passed on. One forward pass more, and exact: a
contrastive loss knows no other way of accumulating. A BatchNorm sees micro-batches as it would see the ranks'.

Shapes: b pairs of this rank, m of a micro-batch, C channels, H and W pixels, T tokens, D numbers per embedding.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from training.parallel import unsynchronised
from training.towers import Embedded

LossOf = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
_Random = list[Tensor]


def fill_gradients(
    towers: nn.Module, pixels_bCHW: Tensor, tokens_bT: Tensor, loss_of: LossOf, micro_batch: int | None = None
) -> Tensor:
    """Add the gradient of the batch's loss to the weights; returns the loss."""
    size = micro_batch or len(pixels_bCHW)
    pieces = list(zip(torch.split(pixels_bCHW, size), torch.split(tokens_bT, size), strict=True))
    if len(pieces) == 1:
        loss = loss_of(*towers(pixels_bCHW, tokens_bT))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    randomness, embedded = _embed(towers, pieces)
    loss, gradients = _gradients(embedded, loss_of)
    image_gradients, text_gradients = torch.split(gradients[0], size), torch.split(gradients[1], size)
    for number, (piece, random) in enumerate(zip(pieces, randomness, strict=True)):
        last = number == len(pieces) - 1
        _set_random(random)
        with nullcontext() if last else unsynchronised(towers):
            outputs = towers(*piece)
            # The temperature has its gradient once, from the loss itself.
            wanted = [image_gradients[number], text_gradients[number], *(gradients[2:] if last else ())]
            _backward(outputs[: len(wanted)], wanted)
    return loss


def _embed(towers: nn.Module, pieces: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[_Random], Embedded]:
    """What the towers make of each piece, and where the random numbers stood before it."""
    buffers = [buffer.clone() for buffer in towers.buffers()]
    randomness, found = [], []
    with torch.no_grad():
        for piece in pieces:
            randomness.append(_random())
            found.append(towers(*piece))
        for buffer, before in zip(towers.buffers(), buffers, strict=True):
            buffer.copy_(before)  # a BatchNorm counts each picture once
    _, _, scale, bias = found[-1]
    return randomness, (torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found]), scale, bias)


def _gradients(embedded: Embedded, loss_of: LossOf) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the gradient of it by all that was embedded."""
    image_bD, text_bD, scale, bias = (None if one is None else one.detach().requires_grad_() for one in embedded)
    assert image_bD is not None
    assert text_bD is not None
    assert scale is not None
    loss = loss_of(image_bD, text_bD, scale, bias)
    leaves = [leaf for leaf in (image_bD, text_bD, scale, bias) if leaf is not None]
    return loss.detach(), list(torch.autograd.grad(loss, leaves))


def _backward(outputs: Sequence[Tensor | None], gradients: Sequence[Tensor]) -> None:
    """Pass gradients on to the weights; a locked tower takes none."""
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o is not None and o.requires_grad]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def _random() -> _Random:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _set_random(state: _Random) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])
