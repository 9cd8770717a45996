"""An exponential moving average of the weights, which often scores better than the last ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """`weights` by name: averaged parameters, and the newest buffers. A rank averages its own share of them."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the newest weights in: average = decay · average + (1 - decay) · weight."""
        parameters: Mapping[str, Tensor] = dict(network.named_parameters())
        for scalar in (True, False):  # FSDP2 shards all but scalars, and one call takes tensors of one kind
            names = [name for name, parameter in parameters.items() if (parameter.ndim == 0) == scalar]
            self._average([self.weights[name] for name in names], [parameters[name] for name in names], 0)
        for name, value in network.state_dict().items():
            if name not in parameters:
                self.weights[name].copy_(value)
