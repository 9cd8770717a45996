"""JPEGs made smaller as planes of brightness and colour, never as RGB: an option of `download`.

Colour is stored at half the size in most JPEGs. Decoders enlarge it, to mix RGB from it, and encoders halve it again;
here it is averaged as it lies. No Python package brings what this needs, so the system's libturbojpeg is called.
"""

import ctypes

import numpy as np

from curation.fetch.pictures.area import shrink
from curation.fetch.pictures.libturbojpeg import turbojpeg
from curation.fetch.pictures.picture_layout import Size

_ACCURATE_DCT = 4096
_HALF_IN_BOTH = 2  # libjpeg-turbo's number for colour of half the size
_YCBCR = 1

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, Cb, Cr: uint8, each _HW


def decode_planes(jpeg: bytes) -> Planes | None:
    """The planes as the JPEG has them; None where it has no three, or is not read without a warning."""
    library = turbojpeg()
    handle = ctypes.c_void_p(library.tjInitDecompress())
    try:
        width, height, subsampling, colours = (ctypes.c_int() for _ in range(4))
        size = ctypes.c_ulong(len(jpeg))
        found = map(ctypes.byref, (width, height, subsampling, colours))
        if library.tjDecompressHeader3(handle, jpeg, size, *found) or colours.value != _YCBCR:
            return None
        planes = _empty_planes((width.value, height.value), subsampling.value)
        if planes is None:
            return None
        pointers, _kept = _pointers(planes)
        if library.tjDecompressToYUVPlanes(handle, jpeg, size, pointers, width, None, height, 0):
            return None
        y, cb, cr = planes
        return y[: height.value, : width.value], cb, cr  # with half colours, an odd Y is padded
    finally:
        library.tjDestroy(handle)


def shrink_planes(planes: Planes, size: Size) -> Planes:
    """The planes averaged to a smaller picture, colour to half of it."""
    height_px, width_px = planes[0].shape
    y, cb, cr = (
        _shrunk(plane_HW, (width_px, height_px), size, part) for plane_HW, part in zip(planes, (1, 2, 2), strict=True)
    )
    return y, cb, cr


def encode_planes(planes: Planes, quality: int) -> bytes:
    """A JPEG of planes whose colour has half the size. Raises RuntimeError."""
    library = turbojpeg()
    handle = ctypes.c_void_p(library.tjInitCompress())
    target, size = ctypes.c_void_p(), ctypes.c_ulong()
    try:
        height, width = planes[0].shape
        padded = np.pad(planes[0], ((0, height % 2), (0, width % 2)), "edge")
        pointers, _kept = _pointers((padded, *planes[1:]))
        more = (_HALF_IN_BOTH, ctypes.byref(target), ctypes.byref(size), quality, _ACCURATE_DCT)
        if library.tjCompressFromYUVPlanes(handle, pointers, width, None, height, *more):
            raise RuntimeError("libturbojpeg cannot encode the planes")
        return ctypes.string_at(target, size.value)
    finally:
        library.tjFree(target)
        library.tjDestroy(handle)


def _empty_planes(size: Size, subsampling: int) -> list[np.ndarray] | None:
    library = turbojpeg()
    sides = [
        (library.tjPlaneHeight(i, size[1], subsampling), library.tjPlaneWidth(i, size[0], subsampling))
        for i in range(3)
    ]
    return [np.empty(side, np.uint8) for side in sides] if min(min(side) for side in sides) > 0 else None


def _pointers(planes: "Planes | list[np.ndarray]") -> tuple[ctypes.Array[ctypes.c_void_p], list[np.ndarray]]:
    """What libturbojpeg takes for planes, and what must live as long."""
    straight = [np.ascontiguousarray(plane_HW) for plane_HW in planes]
    return (ctypes.c_void_p * 3)(*(plane_HW.ctypes.data for plane_HW in straight)), straight


def _shrunk(plane_HW: np.ndarray, source: Size, target: Size, part: int) -> np.ndarray:
    """A plane of the source picture in the size it has when it holds one place for `part` pixels of the target.

    A plane whose colour is coarser than that already is enlarged.
    """
    size: list[int] = []
    steps: list[float] = []
    for places, source_px, target_px in zip(plane_HW.shape[::-1], source, target, strict=True):
        size.append(-(-target_px // part))
        coarser = -(-source_px // places)  # pixels of the source that a place stands for
        steps.append(source_px / coarser / (target_px / part))
    if min(steps) >= 1:
        return shrink(plane_HW[:, :, np.newaxis], size[0], size[1], (steps[0], steps[1]))[:, :, 0]
    from curation.fetch.pictures.lanczos import enlarge

    return enlarge(plane_HW[:, :, np.newaxis], size[0], size[1])[:, :, 0]
