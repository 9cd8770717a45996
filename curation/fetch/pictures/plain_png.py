"""Decodes PNGs of the usual kinds in a third of Pillow's time: eight bits, not interlaced, no colour key.

Inflating is ISA-L's work, undoing the filters (PNG specification, section 9) is numba's. What is of another kind or
damaged is left to Pillow, which decides what it is.
"""

import struct

import numpy as np
from numba import njit

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4


def decode_plain_png(picture: bytes) -> np.ndarray | None:
    """uint8 pixels_HWC, BGR or grey, alpha on white, of a PNG without metadata; None for what Pillow has to read."""
    width_px, height_px, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", picture, 16)
    channels = _CHANNELS.get(kind)
    chunks = _chunks(picture)
    if depth != 8 or interlaced or channels is None or (b"tRNS" in chunks and kind != _PALETTE):
        return None
    lines = _inflated(b"".join(chunks.get(b"IDAT", [])), height_px * (1 + width_px * channels))
    if lines is None:
        return None
    lines_HN = np.frombuffer(lines, np.uint8).reshape(height_px, -1)
    if not _undo_filters(lines_HN, channels):
        return None
    pixels_HWC = np.empty((height_px, width_px, 1 if kind in (_GREY, _GREY_ALPHA) else 3), np.uint8)
    if kind == _GREY:
        pixels_HWC[:, :, 0] = lines_HN[:, 1:]
    elif kind == _RGB:
        _swap_colours(lines_HN, pixels_HWC)
    elif kind == _PALETTE:
        _look_up(lines_HN, _palette(chunks), pixels_HWC)
    else:
        _lay_on_white(lines_HN, pixels_HWC)
    return pixels_HWC


def _chunks(picture: bytes) -> dict[bytes, list[bytes]]:
    """The bodies of all chunks by their kind."""
    found: dict[bytes, list[bytes]] = {}
    at = 8
    while at + 12 <= len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        found.setdefault(kind, []).append(picture[at + 8 : at + 8 + length])
        at += 12 + length
    return found


def _inflated(deflated: bytes, size_bytes: int) -> bytearray | None:
    """Exactly as many bytes as the header promises, checksum right; None for anything else."""
    from isal import isal_zlib

    inflater = isal_zlib.decompressobj()
    try:
        lines = inflater.decompress(deflated, size_bytes + 1)
    except isal_zlib.error:  # type: ignore[misc]  # its stub has an instance there
        return None
    return bytearray(lines) if inflater.eof and len(lines) == size_bytes else None


def _palette(chunks: dict[bytes, list[bytes]]) -> np.ndarray:
    """BGR of all 256 numbers, on white where they are transparent; black where the palette is shorter."""
    line_1N = np.zeros((1, 1 + 256 * 4), np.uint8)
    colours, alpha = (chunks.get(kind, [b""])[0] for kind in (b"PLTE", b"tRNS"))
    values_N4 = line_1N[0, 1:].reshape(256, 4)
    values_N4[:, :3] = np.frombuffer(colours[: 3 * 256].ljust(3 * 256, b"\0"), np.uint8).reshape(256, 3)
    values_N4[:, 3] = np.frombuffer(alpha[:256].ljust(256, b"\xff"), np.uint8)
    palette_1N3 = np.empty((1, 256, 3), np.uint8)
    _lay_on_white(line_1N, palette_1N3)
    return palette_1N3[0]


@njit(cache=True, nogil=True)
def _swap_colours(lines_HN, pixels_HWC):  # type: ignore[no-untyped-def]
    height, width, _ = pixels_HWC.shape
    for y in range(height):
        line = lines_HN[y, 1:]
        for x in range(width):
            pixels_HWC[y, x, 0] = line[3 * x + 2]
            pixels_HWC[y, x, 1] = line[3 * x + 1]
            pixels_HWC[y, x, 2] = line[3 * x]


@njit(cache=True, nogil=True)
def _look_up(lines_HN, palette_N3, pixels_HWC):  # type: ignore[no-untyped-def]
    height, width, _ = pixels_HWC.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                pixels_HWC[y, x, c] = palette_N3[lines_HN[y, 1 + x], c]


@njit(cache=True, nogil=True)
def _lay_on_white(lines_HN, pixels_HWC):  # type: ignore[no-untyped-def]
    """RGBA as BGR, or grey with alpha as grey, on white."""
    height, width, colours = pixels_HWC.shape
    for y in range(height):
        line = lines_HN[y, 1:]
        if colours == 3:
            for x in range(width):
                alpha = np.uint32(line[4 * x + 3])
                pixels_HWC[y, x, 0] = _blended(line[4 * x + 2], alpha)
                pixels_HWC[y, x, 1] = _blended(line[4 * x + 1], alpha)
                pixels_HWC[y, x, 2] = _blended(line[4 * x], alpha)
        else:
            for x in range(width):
                pixels_HWC[y, x, 0] = _blended(line[2 * x], np.uint32(line[2 * x + 1]))


@njit(cache=True, nogil=True)
def _blended(value, alpha):  # type: ignore[no-untyped-def]
    white = np.uint32(255)
    total = np.uint32(value) * alpha + white * (white - alpha) + np.uint32(128)
    return (total + (total >> np.uint32(8))) >> np.uint32(8)  # divided by 255, rounded


@njit(cache=True, nogil=True)
def _undo_filters(lines_HN, channels):  # type: ignore[no-untyped-def]
    """Put the values themselves where lines have differences to their neighbours; False for an unknown filter."""
    above = np.zeros(lines_HN.shape[1], np.uint8)
    for y in range(len(lines_HN)):
        line, kind = lines_HN[y], lines_HN[y, 0]
        if kind > _PAETH:
            return False
        if kind == _SUB:
            for i in range(1 + channels, line.size):
                line[i] += line[i - channels]
        elif kind == _UP:
            for i in range(1, line.size):
                line[i] += above[i]
        elif kind == _AVERAGE:
            for i in range(1, 1 + channels):
                line[i] += above[i] >> 1
            for i in range(1 + channels, line.size):
                line[i] += (np.int32(line[i - channels]) + np.int32(above[i])) >> 1
        elif kind == _PAETH and channels == 3:
            _undo_paeth_of_three(line, above)
        elif kind == _PAETH and channels == 4:
            _undo_paeth_of_four(line, above)
        elif kind == _PAETH:
            _undo_paeth(line, above, channels)
        above = line
    return True


@njit(cache=True, nogil=True)
def _nearest(left, up, corner):  # type: ignore[no-untyped-def]
    """Paeth's guess: of the three neighbours the one nearest to left + up - corner."""
    from_left, from_up = abs(up - corner), abs(left - corner)
    from_corner = abs(left + up - 2 * corner)
    up_is_nearer = np.int32(from_up <= from_corner)  # numbers instead of branches, which no processor could foresee
    second = corner + up_is_nearer * (up - corner)
    left_is_nearest = np.int32(from_left <= from_up) & np.int32(from_left <= from_corner)
    return second + left_is_nearest * (left - second)


@njit(cache=True, nogil=True)
def _undo_paeth(line, above, channels):  # type: ignore[no-untyped-def]
    for i in range(1, line.size):
        inside = i > channels
        left = np.int32(line[i - channels]) if inside else np.int32(0)
        corner = np.int32(above[i - channels]) if inside else np.int32(0)
        line[i] += _nearest(left, np.int32(above[i]), corner)


@njit(cache=True, nogil=True)
def _undo_paeth_of_three(line, above):  # type: ignore[no-untyped-def]
    """Channels side by side: each waits for its own last value only."""
    a = b = c = corner_a = corner_b = corner_c = np.int32(0)
    for i in range(1, line.size - 2, 3):
        up_a, up_b, up_c = np.int32(above[i]), np.int32(above[i + 1]), np.int32(above[i + 2])
        a = (line[i] + _nearest(a, up_a, corner_a)) & np.int32(255)
        b = (line[i + 1] + _nearest(b, up_b, corner_b)) & np.int32(255)
        c = (line[i + 2] + _nearest(c, up_c, corner_c)) & np.int32(255)
        line[i], line[i + 1], line[i + 2] = a, b, c
        corner_a, corner_b, corner_c = up_a, up_b, up_c


@njit(cache=True, nogil=True)
def _undo_paeth_of_four(line, above):  # type: ignore[no-untyped-def]
    a = b = c = d = corner_a = corner_b = corner_c = corner_d = np.int32(0)
    for i in range(1, line.size - 3, 4):
        up_a, up_b, up_c, up_d = (
            np.int32(above[i]),
            np.int32(above[i + 1]),
            np.int32(above[i + 2]),
            np.int32(above[i + 3]),
        )
        a = (line[i] + _nearest(a, up_a, corner_a)) & np.int32(255)
        b = (line[i + 1] + _nearest(b, up_b, corner_b)) & np.int32(255)
        c = (line[i + 2] + _nearest(c, up_c, corner_c)) & np.int32(255)
        d = (line[i + 3] + _nearest(d, up_d, corner_d)) & np.int32(255)
        line[i], line[i + 1], line[i + 2], line[i + 3] = a, b, c, d
        corner_a, corner_b, corner_c, corner_d = up_a, up_b, up_c, up_d
