"""How a picture becomes the square that a model sees: the same for training, zero-shot and scoring."""

import numpy as np
from PIL import Image

_LONGEST = 20  # times the shorter side


def square(pixels_HWC: np.ndarray, side_px: int) -> np.ndarray:
    """The picture with its shorter side resized to `side_px` (bicubic) and its middle cut out; uint8 HWC, RGB.

    Sizes are rounded as torchvision's Resize and CenterCrop round them, which open_clip uses.
    """
    height, width = pixels_HWC.shape[:2]
    short = min(height, width)
    if max(height, width) > _LONGEST * short:  # a strip of 1 × 16,384 would become gigabytes before its ends are cut
        top, left = (max(0, side - _LONGEST * short) // 2 for side in (height, width))
        pixels_HWC = pixels_HWC[top : height - top, left : width - left]
        height, width = pixels_HWC.shape[:2]
    long = max(height, width)
    scaled = int(side_px * long / short)
    size = (side_px, scaled) if width <= height else (scaled, side_px)
    left, top = (round((side - side_px) / 2.0) for side in size)
    if short == side_px:
        resized_HWC = pixels_HWC
    else:
        from schemas import bicubic  # numba takes a second to import

        if bicubic.takes(height, width, size):
            return bicubic.resize(pixels_HWC, size, left, top, side_px)
        resized_HWC = np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BICUBIC))
    return resized_HWC[top : top + side_px, left : left + side_px]
