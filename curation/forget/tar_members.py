"""Which members of a tar are forgotten."""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.forget.tombstones import Tombstones


def members(tombstones: Tombstones, path: Path) -> tuple[list[tarfile.TarInfo], np.ndarray]:
    """The members of a tar, and which are forgotten, bool_N: by what they are named after, or by their bytes."""
    found: list[tarfile.TarInfo] = []
    digests: list[str] = []
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            found.append(member)
            digests.append(hashlib.sha256(tar.extractfile(member).read()).hexdigest())  # type: ignore[union-attr]
    gone_N = tombstones.matches("picture", pa.array(digests, pa.string()))
    stems = pa.array([member.name.partition(".")[0] for member in found], pa.string())
    for kind in ("key", "url", "picture"):
        gone_N |= tombstones.matches(kind, stems)
    return found, gone_N
