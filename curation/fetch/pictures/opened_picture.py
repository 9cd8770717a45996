"""Fetched bytes behind a checked header: size, orientation, the form without metadata, and then the pixels.

JPEGs go to libjpeg-turbo directly, usual PNGs to a decoder of our own, WebP to OpenCV, everything else to Pillow. It
is also asked about all that the others refuse, and decides what is a picture. Pixels are BGR (or grey), as OpenCV and
so img2dataset has them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from curation.fetch.pictures.picture_layout import Size
from curation.fetch.pictures.strip_metadata import Bare, BrokenStructure, jpeg_exif, orientation, without_metadata
from schemas.pixels import (
    DECODE_ERROR,
    FORMATS,
    MOST_PIXELS,
    DecodeError,
    on_white,
    open_picture,
    require_within_limits,
)

if TYPE_CHECKING:
    from curation.fetch.pictures.jpeg_planes import Planes

_FETCHED_FORMATS = (*FORMATS, "GIF", "AVIF")
_JPEG, _GIF = b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_DECODED_BY_TURBO = {"YCbCr": "BGR", "RGB": "BGR", "Gray": "GRAY"}  # by a JPEG's colour space


class OpenedPicture(Protocol):
    """A picture within the limits whose pixels are not decoded yet."""

    @property
    def size(self) -> Size:
        """Width and height as the file has them, not turned."""

    @property
    def turn(self) -> int:
        """EXIF's orientation, 1 to 8."""

    @property
    def bare(self) -> Bare | None:
        """The picture without metadata; None where it cannot be stored as it came."""

    def require_decodable(self) -> None:
        """Decode everything once. Raises."""

    def pixels(self, at_least: Size | None = None) -> np.ndarray:
        """uint8 pixels_HWC, BGR or grey, alpha on white; may be smaller than the file's, but not below `at_least`."""

    def planes(self) -> "Planes | None":
        """Brightness and colours of a JPEG as it has them; None where there are none, or where it is damaged."""


@contextmanager
def open_fetched(fetched: bytes) -> Iterator[OpenedPicture]:
    """The picture in fetched bytes; whatever goes wrong inside becomes a DecodeError."""
    jpeg = _Jpeg.opened(fetched) if fetched.startswith(_JPEG) else None
    if jpeg is None:
        with _opened_by_pillow(fetched) as picture:
            yield picture
        return
    try:
        yield jpeg
    except DecodeError:
        raise
    except Exception as error:  # decoders raise nearly everything
        raise DecodeError(f"the picture cannot be decoded: {type(error).__name__}: {error}") from error


@contextmanager
def _opened_by_pillow(fetched: bytes) -> Iterator["_ByPillow"]:
    bare = _bare_picture(fetched)
    if bare is None:
        _require_few_gif_frames(fetched)
    with open_picture(bare.data if bare else fetched, FORMATS if bare else _FETCHED_FORMATS) as image:
        yield _ByPillow(image, bare)


def _bare_picture(fetched: bytes) -> Bare | None:
    """The picture without metadata; None where it must be encoded anew in any case, from the bytes as they came."""
    try:
        bare = without_metadata(fetched)
    except BrokenStructure:
        return None  # a decoder may still read it
    return None if bare is None or bare.animated else bare


@dataclass(frozen=True)
class _ByPillow:
    image: Image.Image
    bare: Bare | None

    @property
    def size(self) -> Size:
        return self.image.size

    @property
    def turn(self) -> int:
        return orientation(self.bare.exif if self.bare else self.image.info.get("exif", b""))

    def require_decodable(self) -> None:
        self.image.load()

    def planes(self) -> None:
        return None

    def pixels(self, _at_least: Size | None = None) -> np.ndarray:
        if self.bare and self.bare.format == "webp":
            return _webp_pixels(self.bare.data)
        plain_HWC = _plain_png_pixels(self.bare.data) if self.bare and self.bare.format == "png" else None
        if plain_HWC is not None:
            return plain_HWC
        if self.image.mode == "L" and not self.image.has_transparency_data:
            return np.asarray(self.image)[:, :, np.newaxis]
        return np.asarray(on_white(self.image))[:, :, ::-1]


@dataclass(frozen=True)
class _Jpeg:
    fetched: bytes
    size: Size
    colours: str  # of simplejpeg

    @classmethod
    def opened(cls, fetched: bytes) -> "_Jpeg | None":
        """The JPEG; None where libjpeg-turbo does not read its header or its colours are not plain."""
        import simplejpeg

        try:
            height_px, width_px, colour_space, _ = simplejpeg.decode_jpeg_header(fetched)
        except (ValueError, KeyError):  # KeyError: it has no name for some ways to subsample colour
            return None
        require_within_limits(width_px, height_px)
        colours = _DECODED_BY_TURBO.get(colour_space)
        return cls(fetched, (width_px, height_px), colours) if colours else None

    @cached_property
    def turn(self) -> int:
        return orientation(jpeg_exif(self.fetched))

    @property
    def bare(self) -> Bare | None:
        return _bare_picture(self.fetched)

    def require_decodable(self) -> None:
        self._decoded("GRAY", None)  # colours are read all the same, and the time to convert them is saved

    def pixels(self, at_least: Size | None = None) -> np.ndarray:
        return self._decoded(self.colours, at_least)

    def planes(self) -> "Planes | None":
        from curation.fetch.pictures.jpeg_planes import decode_planes

        return decode_planes(self.fetched)

    def _decoded(self, colours: str, at_least: Size | None) -> np.ndarray:
        import simplejpeg

        width_px, height_px = at_least or self.size
        try:
            return simplejpeg.decode_jpeg(
                self.fetched, colours, min_width=width_px, min_height=height_px, min_factor=2, strict=True
            )
        except ValueError:  # warnings count: a file that is cut short would become grey below
            with _opened_by_pillow(self.fetched) as picture:
                return picture.pixels()


def _plain_png_pixels(picture: bytes) -> np.ndarray | None:
    from curation.fetch.pictures.plain_png import decode_plain_png

    return decode_plain_png(picture)


def _webp_pixels(picture: bytes) -> np.ndarray:
    """OpenCV takes half of Pillow's time, which decodes every WebP as an animation."""
    import cv2

    pixels_HWC = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels_HWC is None:
        raise DecodeError("the WebP is broken or cut short", DECODE_ERROR)
    if pixels_HWC.shape[2] == 3:
        return pixels_HWC
    alpha_HW1 = pixels_HWC[:, :, 3:].astype(np.uint16)
    return ((pixels_HWC[:, :, :3] * alpha_HW1 + 255 * (255 - alpha_HW1) + 127) // 255).astype(np.uint8)


def _require_few_gif_frames(fetched: bytes) -> None:
    """Count a GIF's frames by its structure: Pillow would take seconds for a file made of a million tiny ones."""
    if not fetched.startswith(_GIF) or len(fetched) < 13:
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
