"""Resizes a picture as Pillow does with BICUBIC, bit for bit and several times as fast, and only the part that is kept.

Pillow (src/libImaging/Resample.c) averages across, rounds to 8 bits, then averages down, in integers of 22 binary
places. Integer sums are the same in any order, so here all values of a row are summed side by side: averaging down is
vectors along memory, and averaging across is averaging down in a picture whose rows became columns.
Shapes: H and W of the source, h and w of the result, of which they are the square that is kept.
"""

from functools import lru_cache

import numpy as np
from numba import njit

_SUPPORT = 2.0
_PLACES = 22
_BLOCK = 16  # pixels
_LEAST_PX = 64


def takes(height: int, width: int, size: tuple[int, int]) -> bool:
    """Whether `resize` gives Pillow's bits there: it shrinks, and Pillow (13) goes across first, then down.

    Pictures about twice as tall as wide, or more, go down first.
    """
    shrinks = size[0] < width and size[1] < height
    return shrinks and min(height, width) >= _LEAST_PX and height - size[1] <= 2 * (width - size[0])


def resize(pixels_HWC: np.ndarray, size: tuple[int, int], left: int, top: int, side_px: int) -> np.ndarray:
    """uint8 pixels_hwC: a square of `side_px` at (left, top) of the RGB picture resized to `size` (width, height)."""
    height, width, channels = pixels_HWC.shape
    assert channels == 3 and takes(height, width, size), "asked for what `takes` refuses"  # noqa: PT018
    first_w, weights_w = _taps(width, size[0], left, left + side_px)
    first_h, weights_h = _taps(height, size[1], top, top + side_px)
    above, below = first_h[0], first_h[-1] + weights_h.shape[1]
    left_of, right_of = first_w[0], first_w[-1] + weights_w.shape[1]
    source = pixels_HWC[above:below, left_of:right_of]
    rows, columns = source.shape[:2]
    source = np.ascontiguousarray(source).reshape(rows, -1)
    turned = np.empty((columns, 3 * rows), np.uint8)
    _turned(source, turned)
    across = np.empty((side_px, 3 * rows), np.uint8)
    _down(turned, first_w - left_of, weights_w, across)
    back = np.empty((rows, 3 * side_px), np.uint8)
    _turned(across, back)
    down = np.empty((side_px, 3 * side_px), np.uint8)
    _down(back, first_h - above, weights_h, down)
    return down.reshape(side_px, side_px, 3)


@lru_cache(1024)  # pictures of one set share few lengths, and Python's lock is held meanwhile
def _taps(source: int, target: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """For target places `start` to `end` the first source place, and the weights of that and the next ones (int32).

    All places have the same number of weights, the missing ones being 0.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    centres = (np.arange(start, end) + 0.5) * scale
    lowest = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    highest = np.minimum((centres + support + 0.5).astype(np.int64), source)
    count = -(-int((highest - lowest).max()) // 4) * 4
    first = np.minimum(lowest, source - count)
    places = first[:, None] + np.arange(count)
    weights = _bicubic((places - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[(places < lowest[:, None]) | (places >= highest[:, None])] = 0.0
    total = np.zeros(len(weights))
    for column in weights.T:  # one after the other, as Pillow adds them: another order would round otherwise
        total += column
    weights /= np.where(total == 0, 1.0, total)[:, None]
    return first, np.trunc(weights * (1 << _PLACES) + np.copysign(0.5, weights)).astype(np.int32)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, spelled as Pillow spells it, for the same rounding."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    found: np.ndarray = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return found


@njit(cache=True, nogil=True)
def _turned(source, out):  # type: ignore[no-untyped-def]
    """Rows become columns, in blocks that stay in the processor's cache."""
    height, width = source.shape[0], source.shape[1] // 3
    for y0 in range(0, height, _BLOCK):
        for x0 in range(0, width, _BLOCK):
            for x in range(x0, min(x0 + _BLOCK, width)):
                for y in range(y0, min(y0 + _BLOCK, height)):
                    out[x, 3 * y] = source[y, 3 * x]
                    out[x, 3 * y + 1] = source[y, 3 * x + 1]
                    out[x, 3 * y + 2] = source[y, 3 * x + 2]


@njit(cache=True, nogil=True)
def _down(source, first, weights, out):  # type: ignore[no-untyped-def]
    """Average down, all values of a row side by side, four rows at a time."""
    sums = np.empty(out.shape[1], np.int32)
    for y in range(first.size):
        sums[:] = 1 << (_PLACES - 1)
        for k in range(0, weights.shape[1], 4):
            at = first[y] + k
            _add_four(sums, source[at], source[at + 1], source[at + 2], source[at + 3], weights[y, k : k + 4])
        _put(sums, out[y])


@njit(cache=True, nogil=True)
def _add_four(sums, a, b, c, d, weights):  # type: ignore[no-untyped-def]
    p, q, r, s = weights[0], weights[1], weights[2], weights[3]
    for i in range(sums.size):
        sums[i] += p * np.int32(a[i]) + q * np.int32(b[i]) + r * np.int32(c[i]) + s * np.int32(d[i])


@njit(cache=True, nogil=True)
def _put(sums, out):  # type: ignore[no-untyped-def]
    for i in range(sums.size):
        out[i] = min(max(sums[i] >> _PLACES, 0), 255)
