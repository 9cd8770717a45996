"""Shrinks a picture by averaging over areas: OpenCV's INTER_AREA within one grey level, several times as fast.

Rows are averaged first. That reads the source once, in straight vectors over all channels of a row, and leaves only
as many rows as the target has for the averages across, whose memory access no compiler turns into vectors: there,
four rows go side by side (grey) or the channels of a pixel do (colour).
"""

import numpy as np
from numba import njit

from curation.fetch.pictures.lanes import add_weighted, put_down, put_pixel, zeros

_ROWS = 4  # target rows that are averaged across together


def shrink(
    pixels_HWC: np.ndarray, width_px: int, height_px: int, steps: tuple[float, float] | None = None
) -> np.ndarray:
    """uint8 pixels of 1 or 3 channels averaged to a size that is at most theirs on both sides.

    `steps` says how many source places a target place covers across and down, where that is not the sizes' quotient:
    half of 99 pixels of colour are 50 places, of which the last one lies half beyond the edge.
    """
    source_height_px, source_width_px, channels = pixels_HWC.shape
    assert channels in (1, 3), "only grey and RGB are averaged"
    assert 0 < width_px <= source_width_px, "an area average does not enlarge"
    assert 0 < height_px <= source_height_px, "an area average does not enlarge"
    step_x, step_y = steps or (source_width_px / width_px, source_height_px / height_px)
    lines = -height_px % _ROWS + height_px
    shrunk_HWC = np.empty((lines, width_px, channels), np.uint8)
    source = np.require(pixels_HWC, np.uint8, ["C", "W"]).reshape(source_height_px, -1)
    _shrink(source, channels, height_px, width_px, step_x, step_y, shrunk_HWC.reshape(-1))
    return shrunk_HWC[:height_px]


@njit(cache=True, nogil=True)
def _shrink(source, channels, height, width, step_x, step_y, out):  # type: ignore[no-untyped-def]
    values = source.shape[1]
    top, down = _taps(source.shape[0], height, step_y)
    left, across = _taps(values // channels, width, step_x)
    rows = np.zeros(_ROWS * values + 4, np.float32)  # of a pixel's 3 values, 4 are read
    beside = np.empty(0 if channels == 3 else _ROWS * values, np.float32)
    for y in range(0, height, _ROWS):
        for r in range(min(_ROWS, height - y)):
            _average_rows(source, top[y + r], down[y + r], rows[r * values : (r + 1) * values])
        if channels == 3:
            _average_colours(rows, values, left, across, out, y * width * 3)
        else:
            _interleave(rows, values, beside)
            _average_greys(beside, left, across, out, y * width)


@njit(cache=True, nogil=True)
def _taps(source, target, step):  # type: ignore[no-untyped-def]
    """For each target place the first source place, and the weights of that and the next ones (float32).

    All places have the same number of weights, the missing ones being 0, so that loops over them are predictable.
    """
    count = min(source, int(step) + (0 if step == int(step) else 2))
    first = np.empty(target, np.int64)
    weights = np.zeros((target, count), np.float32)
    for i in range(target):
        start, end = i * step, min((i + 1) * step, float(source))
        first[i] = min(int(start + 1e-9), source - count)
        for k in range(count):
            place = float(first[i] + k)
            weights[i, k] = max(0.0, min(end, place + 1) - max(start, place)) / (end - start)
    return first, weights


@njit(cache=True, nogil=True)
def _average_rows(source, top, weights, row):  # type: ignore[no-untyped-def]
    """The weighted sum of some source rows, four at a time, so that sums stay in registers."""
    for k in range(0, weights.size, 4):
        rest = weights.size - k
        a, b = source[top + k], source[top + k + min(1, rest - 1)]
        weight_a, weight_b = weights[k], weights[k + 1] if rest > 1 else np.float32(0)
        if rest <= 2:
            _add_two(row, a, b, weight_a, weight_b, k > 0)
        else:
            c, d = source[top + k + 2], source[top + k + min(3, rest - 1)]
            weight_d = weights[k + 3] if rest > 3 else np.float32(0)
            _add_four(row, a, b, c, d, weight_a, weight_b, weights[k + 2], weight_d, k > 0)


@njit(cache=True, nogil=True, fastmath=True)
def _add_two(row, a, b, weight_a, weight_b, more):  # type: ignore[no-untyped-def]
    if more:
        for i in range(row.size):
            row[i] += weight_a * a[i] + weight_b * b[i]
    else:
        for i in range(row.size):
            row[i] = weight_a * a[i] + weight_b * b[i]


@njit(cache=True, nogil=True, fastmath=True)
def _add_four(row, a, b, c, d, weight_a, weight_b, weight_c, weight_d, more):  # type: ignore[no-untyped-def]
    if more:
        for i in range(row.size):
            row[i] += weight_a * a[i] + weight_b * b[i] + weight_c * c[i] + weight_d * d[i]
    else:
        for i in range(row.size):
            row[i] = weight_a * a[i] + weight_b * b[i] + weight_c * c[i] + weight_d * d[i]


@njit(cache=True, nogil=True)
def _average_colours(rows, values, left, across, out, at):  # type: ignore[no-untyped-def]
    """Four rows of RGB, one behind the other, averaged across: lanes are the channels of a pixel."""
    width, count = across.shape
    for x in range(width):
        a, b, c, d = zeros(), zeros(), zeros(), zeros()
        place = left[x] * 3
        for k in range(count):
            weight = across[x, k]
            a = add_weighted(a, rows, place, weight)
            b = add_weighted(b, rows, place + values, weight)
            c = add_weighted(c, rows, place + 2 * values, weight)
            d = add_weighted(d, rows, place + 3 * values, weight)
            place += 3
        put_pixel(a, out, at)
        put_pixel(b, out, at + 3 * width)
        put_pixel(c, out, at + 6 * width)
        put_pixel(d, out, at + 9 * width)
        at += 3


@njit(cache=True, nogil=True)
def _interleave(rows, values, beside):  # type: ignore[no-untyped-def]
    for i in range(values):
        beside[4 * i] = rows[i]
        beside[4 * i + 1] = rows[i + values]
        beside[4 * i + 2] = rows[i + 2 * values]
        beside[4 * i + 3] = rows[i + 3 * values]


@njit(cache=True, nogil=True)
def _average_greys(beside, left, across, out, at):  # type: ignore[no-untyped-def]
    """Four rows of grey, interleaved, averaged across: lanes are the rows."""
    width, count = across.shape
    for x in range(width):
        lanes = zeros()
        for k in range(count):
            lanes = add_weighted(lanes, beside, 4 * (left[x] + k), across[x, k])
        put_down(lanes, out, at + x, width)
