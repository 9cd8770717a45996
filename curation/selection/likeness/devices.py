"""Where products of many vectors are computed, and by how many processors; no result hangs on it."""

import os
from functools import cache
from pathlib import Path


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def device() -> str:
    """`cuda` where this machine has such a GPU, else `cpu`; torch is imported only where there may be one."""
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
