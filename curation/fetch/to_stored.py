"""From fetched bytes to stored bytes: what a picture of the pool is, wherever it came from.

A JPEG, PNG or WebP that needs no change is stored as it came, without metadata. What is shrunk, turned, animated, of
another format or loosely built becomes a JPEG of quality 95, alpha on white, orientation applied. Every picture is
decoded in full once, so that whatever is stored can be decoded again. What stands here is part of `download`'s
version: captured bytes are not compared, but a fingerprint must not mean two things.
"""

import io
from dataclasses import dataclass
from fractions import Fraction

from PIL import Image

from curation.fetch.strip_metadata import Bare, BrokenStructure, orientation, without_metadata
from schemas.pixels import FORMATS, MOST_PIXELS, on_white, open_picture, require_within_limits

JPEG_QUALITY = 95
_FETCHED_FORMATS = (*FORMATS, "GIF", "AVIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)


@dataclass(frozen=True)
class Stored:
    """A picture as the pool keeps it; the original's size is that of the fetched picture, orientation applied."""

    bytes: bytes
    format: str  # jpg, png or webp
    original_width_px: int
    original_height_px: int


def to_stored(fetched: bytes, *, longest_side_px: int | None = None, shortest_side_px: int | None = None) -> Stored:
    """The stored form of fetched bytes, shrunk where a side is longer than asked for, never enlarged.

    Raises schemas.pixels.DecodeError with status `not_an_image`, `decode_error` or `too_many_pixels`.
    """
    bare = _bare(fetched)
    if bare is None:
        _require_few_gif_frames(fetched)
    with open_picture(bare.data if bare else fetched, FORMATS if bare else _FETCHED_FORMATS) as image:
        turn = orientation(bare.exif if bare else image.info.get("exif", b""))
        width_px, height_px = image.size[::-1] if turn in _SWAPS_SIDES else image.size
        target = shrunk_size(width_px, height_px, longest_side_px, shortest_side_px)
        if bare and turn == 1 and target == (width_px, height_px):
            image.load()
            return Stored(bare.data, bare.format, width_px, height_px)
        pixels = on_white(image)
        if target != (width_px, height_px):
            size = target[::-1] if turn in _SWAPS_SIDES else target
            pixels = pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        if turn in _TURNS:
            pixels = pixels.transpose(_TURNS[turn])
        return Stored(_jpeg(pixels), "jpg", width_px, height_px)


def shrunk_size(
    width_px: int, height_px: int, longest_side_px: int | None, shortest_side_px: int | None
) -> tuple[int, int]:
    """The size under which neither limit is exceeded, in the same proportions; no side becomes 0."""
    limits = [(longest_side_px, max(width_px, height_px)), (shortest_side_px, min(width_px, height_px))]
    scale = min([Fraction(1), *(Fraction(most_px, side_px) for most_px, side_px in limits if most_px is not None)])
    return _scaled(width_px, scale), _scaled(height_px, scale)


def _scaled(side_px: int, scale: Fraction) -> int:
    return max(1, int(side_px * scale + Fraction(1, 2)))


def _bare(fetched: bytes) -> Bare | None:
    """The picture without metadata; None where it must be encoded anew in any case, from the bytes as they came."""
    try:
        bare = without_metadata(fetched)
    except BrokenStructure:
        return None  # Pillow may still read it
    return None if bare is None or bare.animated else bare


def _jpeg(pixels: Image.Image) -> bytes:
    target = io.BytesIO()
    pixels.info = {}  # nothing of the original's comments or profiles may be passed on
    pixels.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _require_few_gif_frames(fetched: bytes) -> None:
    """Count a GIF's frames by its structure: Pillow would take seconds for a file made of a million tiny ones."""
    if not fetched.startswith((b"GIF87a", b"GIF89a")) or len(fetched) < 13:
        return
    width_px, height_px = (int.from_bytes(fetched[at : at + 2], "little") for at in (6, 8))
    most = MOST_PIXELS // max(1, width_px * height_px)
    at, frames = 13 + _palette_bytes(fetched[10]), 0
    while at < len(fetched) and fetched[at] in (0x21, 0x2C) and frames <= most:
        if fetched[at] == 0x2C:
            frames += 1
            at += 11 + _palette_bytes(fetched[at + 9]) if at + 9 < len(fetched) else 11
        else:
            at += 2
        while at < len(fetched) and fetched[at]:  # sub-blocks, each behind its length
            at += 1 + fetched[at]
        at += 1
    require_within_limits(width_px, height_px, frames)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
