"""`image_hash`: a picture as 64 bits, so that pictures that look alike differ in few of them."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from curation.operator import Batch, Failure, Operator, Output
from schemas.columns import DHASH, IMAGE, PHASH, Column


class ImageHash(Operator):
    """Hashes the picture to 64 bits that change little when it is resized or re-encoded (pHash or dHash)."""

    kind: Literal["phash", "dhash"] = Field(
        default="phash", description="phash compares low frequencies, dhash neighbouring columns"
    )

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture."""
        return (IMAGE,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """The hash, under the name of its kind."""
        return (PHASH,) if self.kind == "phash" else (DHASH,)

    def run(self, batch: Batch, opened: Any) -> Output:
        """Hash each picture of the batch; bit for bit what imagehash 4.3 computes from the same pixels."""
        bits_of = phash_bits if self.kind == "phash" else dhash_bits
        values: list[int | None] = []
        failures: dict[int, Failure] = {}
        for row in range(len(batch)):
            pixels_HWC = batch.pixels(row)
            if isinstance(pixels_HWC, Failure):
                failures[row] = pixels_HWC
                values.append(None)
            else:
                values.append(packed(bits_of(pixels_HWC)))
        return Output({self.adds[0].name: values}, failures)


def phash_bits(pixels_HWC: np.ndarray) -> np.ndarray:
    """The 64 bits of imagehash.phash: which of the 8 × 8 lowest frequencies lie above their median, as bool_8x8.

    The transform is scipy.fftpack's: a DCT by matrix product gives other bits on flat pictures.
    """
    from scipy.fftpack import dct

    lowest_8x8 = dct(dct(_luma(pixels_HWC, 32, 32), axis=0), axis=1)[:8, :8]
    return lowest_8x8 > np.median(lowest_8x8)


def dhash_bits(pixels_HWC: np.ndarray) -> np.ndarray:
    """The 64 bits of imagehash.dhash: which pixels are brighter than their left neighbour, as bool_8x8."""
    luma_HW = _luma(pixels_HWC, 9, 8)
    return luma_HW[:, 1:] > luma_HW[:, :-1]


def packed(bits: np.ndarray) -> int:
    """64 bits as an unsigned number, the first bit highest."""
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _luma(pixels_HWC: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """The picture as grey `luma_HW` of that size: first grey, then small, as imagehash does."""
    from PIL import Image

    grey = Image.fromarray(pixels_HWC).convert("L")
    return np.asarray(grey.resize((width_px, height_px), Image.Resampling.LANCZOS))
