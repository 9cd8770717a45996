"""Scaling, turning, framing and encoding of pixels (uint8 pixels_HWC, BGR or grey)."""

from typing import Any

import numpy as np

from curation.fetch.pictures.picture_layout import Size
from schemas.pixels import DecodeError

_SWAPS_SIDES = (5, 6, 7, 8)


def turned_size(size: Size, turn: int) -> Size:
    """The upright size of a picture with EXIF orientation `turn`, and the other way round."""
    return size[::-1] if turn in _SWAPS_SIDES else size


def scaled(pixels_HWC: np.ndarray, size: Size) -> np.ndarray:
    """The pixels in another size: averaged over areas, or by Lanczos where a side grows."""
    height_px, width_px, _ = pixels_HWC.shape
    if size == (width_px, height_px):
        return pixels_HWC
    if size[0] <= width_px and size[1] <= height_px:
        from curation.fetch.pictures.area import shrink

        return shrink(pixels_HWC, *size)
    from curation.fetch.pictures.lanczos import enlarge

    return enlarge(pixels_HWC, *size)


def turned(pixels_HWC: np.ndarray, turn: int) -> np.ndarray:
    """The pixels upright, by EXIF's orientation 1 to 8."""
    across = np.swapaxes(pixels_HWC, 0, 1) if turn in _SWAPS_SIDES else pixels_HWC
    mirrored_x, mirrored_y = turn in (2, 3, 6, 7), turn in (3, 4, 7, 8)
    return across[:: -1 if mirrored_y else 1, :: -1 if mirrored_x else 1]


def framed(pixels_HWC: np.ndarray, frame: Size) -> np.ndarray:
    """The middle of the pixels in a frame: cut where they are larger, on white where they are smaller."""
    height_px, width_px, channels = pixels_HWC.shape
    if frame == (width_px, height_px):
        return pixels_HWC
    left, top = (width_px - frame[0]) // 2, (height_px - frame[1]) // 2
    cut_HWC = pixels_HWC[max(0, top) : max(0, top) + frame[1], max(0, left) : max(0, left) + frame[0]]
    framed_HWC = np.full((frame[1], frame[0], channels), 255, np.uint8)
    left, top = (frame[0] - cut_HWC.shape[1]) // 2, (frame[1] - cut_HWC.shape[0]) // 2
    framed_HWC[top : top + cut_HWC.shape[0], left : left + cut_HWC.shape[1]] = cut_HWC
    return framed_HWC


def encoded(pixels_HWC: np.ndarray, name: str, quality: int) -> bytes:
    """The pixels as a jpg, png or webp, as OpenCV writes it: JPEG with 4:2:0, no metadata. Raises DecodeError."""
    import cv2

    option = {"jpg": cv2.IMWRITE_JPEG_QUALITY, "png": cv2.IMWRITE_PNG_COMPRESSION, "webp": cv2.IMWRITE_WEBP_QUALITY}
    parameters: list[Any] = [option[name], quality]
    try:
        done, data = cv2.imencode(f".{name}", np.ascontiguousarray(pixels_HWC), parameters)
    except cv2.error as error:
        raise DecodeError(f"the picture cannot be encoded as {name}: {error}") from error
    if not done:
        raise DecodeError(f"the picture cannot be encoded as {name} in its size of {pixels_HWC.shape[:2]} pixels")
    return data.tobytes()
