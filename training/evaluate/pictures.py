"""Pictures to evaluate on: where each lies, how it is read, and what vectors a model makes of many.

Shapes: N pictures, D numbers per embedding, H and W pixels, C channels.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import InputError, RunError
from schemas.picture_transform import square
from schemas.pixels import DecodeError, decode

if TYPE_CHECKING:
    from training.model import Model

_AT_ONCE = 256


@dataclass(frozen=True)
class InTar:
    """A picture in a tar, by the place of its bytes."""

    path: Path
    offset: int
    size_bytes: int

    def read(self) -> bytes:
        """The stored bytes."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size_bytes)

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset:,}"


@dataclass(frozen=True)
class InParquet:
    """A picture in a Parquet file, by row group and row; the column holds bytes, or Hugging Face's {bytes, path}."""

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """The stored bytes."""
        value = _row_group(self.path, self.column, self.group)[self.row].as_py()
        return bytes((value["bytes"] if isinstance(value, dict) else value) or b"")

    def __str__(self) -> str:
        return f"{self.path}, row {self.row:,} of row group {self.group}"


Picture = np.ndarray | bytes | Path | str | InTar | InParquet
"""uint8 pixels_HWC, stored bytes, a file, or a place in a larger file."""


def embed_pictures(model: "Model", pictures: Sequence[Picture], what: str) -> np.ndarray:
    """float32 image_ND of unit length. Raises InputError, which begins with `what`, for one that cannot be decoded."""
    import torch

    def vectors(squares: Sequence[np.ndarray]) -> np.ndarray:
        pixels_BCHW = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return model.embed_pictures(pixels_BCHW).cpu().numpy()

    model.network.eval()
    image_ND = np.concatenate([vectors(squares) for squares in _squares(pictures, model.side_px, what)])
    require_finite(image_ND, "pictures")
    return image_ND


def require_finite(vectors_ND: np.ndarray, of: str) -> None:
    """Raise RunError where a model gives vectors that no score can be made of: with NaN every comparison is false."""
    broken = int((~np.isfinite(vectors_ND)).any(1).sum())
    if broken:
        raise RunError(f"the model's vectors of {broken:,} of {len(vectors_ND):,} {of} are not finite numbers")


def _squares(pictures: Sequence[Picture], side_px: int, what: str) -> Iterator[list[np.ndarray]]:
    """Squares of pictures, so many at once; those of the next pass are decoded while a model works."""

    def submitted(chunk: Sequence[Picture]) -> list[Future[np.ndarray]]:
        # Bytes are read in order, by this thread alone, so that a row group is read once.
        return [decoders.submit(_square, picture, _stored(picture, what), side_px, what) for picture in chunk]

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode") as decoders:
        before = submitted(pictures[:_AT_ONCE])
        for start in range(_AT_ONCE, len(pictures) + _AT_ONCE, _AT_ONCE):
            ahead = submitted(pictures[start : start + _AT_ONCE])
            yield [future.result() for future in before]
            before = ahead


def _stored(picture: Picture, what: str) -> bytes | np.ndarray:
    if isinstance(picture, bytes | np.ndarray):
        return picture
    try:
        return Path(picture).read_bytes() if isinstance(picture, Path | str) else picture.read()
    except OSError as error:
        raise InputError(f"{what}: picture {picture} cannot be read: {error}") from error


def _square(picture: Picture, stored: bytes | np.ndarray, side_px: int, what: str) -> np.ndarray:
    try:
        return square(stored if isinstance(stored, np.ndarray) else decode(stored), side_px)
    except DecodeError as error:
        named = "a stored picture" if isinstance(picture, bytes) else f"picture {picture}"
        raise InputError(f"{what}: {named} cannot be read: {error}") from error


@functools.lru_cache(maxsize=1)
def _row_group(path: Path, column: str, group: int) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)
