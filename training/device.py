"""Which device a training runs on, and how exactly it multiplies there."""

import os

from schemas.any_training import AnyTraining
from schemas.errors import InputError


def device_of(spec: AnyTraining) -> str:
    """The device of this rank: cpu, or cuda and its place. Raises InputError where there is none."""
    import torch

    if spec.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"training {spec.name}: device is cuda and this machine has no GPU; say `device: auto`")
    if spec.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    place = int(os.environ.get("LOCAL_RANK", 0))
    if place >= torch.cuda.device_count():
        raise InputError(
            f"training {spec.name}: there are more ranks than the {torch.cuda.device_count()} GPUs of this machine"
        )
    torch.cuda.set_device(place)
    torch.set_float32_matmul_precision("high")  # logits in TF32; whoever wants all bits says `precision: fp32`
    return f"cuda:{place}"
