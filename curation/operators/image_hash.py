"""`image_hash`: a picture as 64 or 256 bits, so that pictures that look alike differ in few of them."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from curation.operator import Batch, Failure, Operator, Output
from curation.pdq import pdq_and_quality
from schemas.columns import DHASH, IMAGE, PDQ, PDQ_QUALITY, PHASH, Column


class ImageHash(Operator):
    """Hashes the picture to bits that change little when it is resized or re-encoded (pHash, dHash or PDQ)."""

    kind: Literal["phash", "dhash", "pdq"] = Field(
        default="phash",
        description="phash (64 bits) compares low frequencies, dhash (64) neighbouring columns, pdq (256) more "
        "frequencies, with a quality",
    )

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture."""
        return (IMAGE,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """The hash, under the name of its kind; PDQ's quality beside it."""
        return {"phash": (PHASH,), "dhash": (DHASH,), "pdq": (PDQ, PDQ_QUALITY)}[self.kind]

    def run(self, batch: Batch, opened: Any) -> Output:
        """Hash each picture of the batch; pHash and dHash bit for bit what imagehash 4.3 computes from its pixels."""
        hashed_of = {"phash": _phash, "dhash": _dhash, "pdq": pdq_and_quality}[self.kind]
        values: dict[str, list[Any]] = {column.name: [] for column in self.adds}
        failures: dict[int, Failure] = {}
        for row in range(len(batch)):
            pixels_HWC = batch.pixels(row)
            if isinstance(pixels_HWC, Failure):
                failures[row] = pixels_HWC
            hashed = [None] * len(values) if isinstance(pixels_HWC, Failure) else hashed_of(pixels_HWC)
            for column, value in zip(values.values(), hashed, strict=True):
                column.append(value)
        return Output(values, failures)


def _phash(pixels_HWC: np.ndarray) -> tuple[int]:
    """The 64 bits of imagehash.phash: which of the 8 × 8 lowest frequencies lie above their median.

    The transform is scipy.fftpack's: a DCT by matrix product gives other bits on flat pictures.
    """
    from scipy.fftpack import dct

    lowest_8x8 = dct(dct(_luma(pixels_HWC, 32, 32), axis=0), axis=1)[:8, :8]
    return (_packed(lowest_8x8 > np.median(lowest_8x8)),)


def _dhash(pixels_HWC: np.ndarray) -> tuple[int]:
    """The 64 bits of imagehash.dhash: which pixels are brighter than their left neighbour."""
    luma_HW = _luma(pixels_HWC, 9, 8)
    return (_packed(luma_HW[:, 1:] > luma_HW[:, :-1]),)


def _packed(bits: np.ndarray) -> int:
    """64 bits as an unsigned number, the first bit highest."""
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _luma(pixels_HWC: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """The picture as grey `luma_HW` of that size: first grey, then small, as imagehash does."""
    from PIL import Image

    grey = Image.fromarray(pixels_HWC).convert("L")
    return np.asarray(grey.resize((width_px, height_px), Image.Resampling.LANCZOS))
