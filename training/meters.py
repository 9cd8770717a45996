"""How well a device is used: floating-point operations per sample, and the device's highest rate."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.model import Model

# Dense bfloat16, without sparsity, by the makers' data sheets; the first name that is part of the device's counts.
_PEAK_FLOPS = {
    "B200": 2250e12, "H200": 989.5e12, "H100 PCIe": 756e12, "H100": 989.5e12, "A100": 312e12, "L40S": 362e12,
    "L4": 121e12, "A10": 125e12, "RTX 4090": 165.2e12,
}  # fmt: skip


def peak_flops(device: torch.device) -> float | None:
    """What a device can do per second at most; None where nobody has noted it, as for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAK_FLOPS.items() if known in name), None)


def training_flops(on_meta: Model, tokens: int) -> float:
    """Operations to train on one pair, two for a multiplication and addition (PaLM, arXiv 2204.02311, appendix B).

    Three forward passes' worth per tower, one where a tower is locked; what is computed twice to save memory does not
    count, nor does the loss. `on_meta` is the model without memory; captions have `tokens` tokens.
    """
    pixels_BCHW = torch.empty(1, 3, on_meta.side_px, on_meta.side_px, dtype=torch.uint8, device="meta")
    tokens_BT = torch.zeros(1, tokens, dtype=torch.int64, device="meta")
    total = 0.0
    for embed, given in ((on_meta.embed_pictures, pixels_BCHW), (on_meta.embed_captions, tokens_BT)):
        with FlopCounterMode(display=False) as counter:
            made_BD = embed(given)
        total += counter.get_total_flops() * (3 if made_BD.requires_grad else 1)
    return total
