"""Where products of many vectors are computed; no result hangs on it."""

from functools import cache
from pathlib import Path


@cache
def device() -> str:
    """`cuda` where this machine has such a GPU, else `cpu`; torch is imported only where there may be one."""
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
