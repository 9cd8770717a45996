"""Which steps have gone astray, told on the device itself, so that nobody waits for it before the next kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

KEPT = 100  # gradients
_SPIKE = 20.0  # times the median


class SpikeGuard:
    """Remembers the lengths of the last gradients that changed the weights."""

    def __init__(self, norms: Sequence[float], clipped_at: float, device: torch.device) -> None:
        remembered = [*[float("nan")] * KEPT, *norms][-KEPT:]
        self._norms_N = torch.tensor(remembered, dtype=torch.float64, device=device)
        self._clipped_at = clipped_at

    def finds_sound(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Whether (bool, no dimension) a step may change the weights: its loss and gradient are finite, and no spike.

        A spike is beyond what is clipped, and far longer than the gradients before it, once there were enough.
        """
        ordered_N = self._norms_N.sort().values  # NaN last
        median = (ordered_N[KEPT // 2 - 1] + ordered_N[KEPT // 2]) / 2
        spike = (norm > self._clipped_at) & (norm > _SPIKE * median) & ~ordered_N[-1].isnan()
        sound = loss.isfinite() & norm.isfinite() & ~spike
        self._norms_N = torch.where(sound, torch.cat([self._norms_N[1:], norm.view(1)]), self._norms_N)
        return sound
