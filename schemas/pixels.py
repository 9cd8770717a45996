"""What stored bytes mean as pixels: the one decoder, with a version and golden outputs.

A stored picture is a JPEG, PNG or WebP whose orientation is already applied. Its pixels are those of the first frame,
as RGB, alpha on white, 16 bits cut to the upper 8, colour profiles ignored. Limits are checked from the header, before
anything is decoded: 78 kB of PNG can cost 390 MB. Whoever changes what comes out raises `VERSION`: every operator that
looks at pixels has it in its fingerprint.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

VERSION = 1
FORMATS = ("JPEG", "PNG", "WEBP")
MOST_PIXELS = 50_000_000  # width · height · frames
MOST_SIDE_PX = 16_384

_FRAMES_IN_HEADER = ("PNG", "WEBP", "AVIF")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")

DECODE_ERROR, TOO_MANY_PIXELS, NOT_AN_IMAGE = "decode_error", "too_many_pixels", "not_an_image"


class DecodeError(ValueError):
    """Bytes are no picture that Pairmill takes: a sentence, and in `status` a short class of failure."""

    def __init__(self, message: str, status: str = DECODE_ERROR) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str]]:
        """Keep the status on the way between processes."""
        return DecodeError, (str(self), self.status)


def decode(stored: bytes, at_least_px: int | None = None) -> np.ndarray:
    """The picture as uint8 `pixels_HWC`, RGB, alpha on white, read-only. Raises DecodeError.

    With `at_least_px`, a JPEG comes at half its size or less where its shorter side keeps that many pixels: a third
    of the time, and a little blur. What comes out then is no part of what `VERSION` promises.
    """
    with open_picture(stored) as image:
        pixels_HWC = _decoded_by_turbo(stored, image, at_least_px)
        return np.asarray(on_white(image)) if pixels_HWC is None else pixels_HWC


def picture_size(stored: bytes) -> tuple[int, int]:
    """(width_px, height_px) from the header of a stored picture. Raises DecodeError."""
    with open_picture(stored) as image:
        return image.size


def stored_format(stored: bytes) -> str:
    """The format of a stored picture by its first bytes: jpg, png or webp. Raises DecodeError."""
    if stored.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if stored.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if stored[:4] == b"RIFF" and stored[8:12] == b"WEBP":
        return "webp"
    raise DecodeError("the stored bytes are no JPEG, PNG or WebP", NOT_AN_IMAGE)


@contextmanager
def open_picture(data: bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """The picture behind a header that is within the limits; whatever goes wrong inside becomes a DecodeError."""
    try:
        with _header(data, formats) as image:
            frames = getattr(image, "n_frames", 1) if image.format in _FRAMES_IN_HEADER else 1
            require_within_limits(*image.size, frames)
            yield image
    except DecodeError:
        raise
    except UnidentifiedImageError:
        if data.startswith(_STARTS):
            raise DecodeError("the picture's header is broken") from None
        message = f"the {len(data)} bytes are no picture in a format that is taken: {', '.join(formats)}"
        raise DecodeError(message, NOT_AN_IMAGE) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(str(error), TOO_MANY_PIXELS) from error
    except (Exception, MemoryError, RecursionError) as error:  # decoders raise nearly everything
        raise DecodeError(f"the picture cannot be decoded: {type(error).__name__}: {error}") from error


def require_within_limits(width_px: int, height_px: int, frames: int = 1) -> None:
    """Raise DecodeError where a header announces more than we decode."""
    if max(width_px, height_px) > MOST_SIDE_PX:
        message = f"{width_px} × {height_px} pixels; a side may have at most {MOST_SIDE_PX}"
        raise DecodeError(message, TOO_MANY_PIXELS)
    if width_px * height_px * frames > MOST_PIXELS:
        message = f"{width_px} × {height_px} pixels in {frames} frame(s); at most {MOST_PIXELS} pixels are decoded"
        raise DecodeError(message, TOO_MANY_PIXELS)


def on_white(image: Image.Image) -> Image.Image:
    """The first frame in RGB, alpha composed on white."""
    image.load()
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255 where it should divide
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")


def _decoded_by_turbo(stored: bytes, image: Image.Image, at_least_px: int | None) -> np.ndarray | None:
    """The pixels of a plain JPEG by libjpeg-turbo without Pillow's detours, the same bits; None for all else.

    It counts warnings as errors: Pillow decides about files that are damaged.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    import simplejpeg

    least = max(at_least_px or MOST_SIDE_PX, 1)
    try:
        pixels_HWC: np.ndarray = simplejpeg.decode_jpeg(
            stored, "RGB", min_width=least, min_height=least, min_factor=2, strict=True
        )
    except (ValueError, KeyError):  # KeyError: it has no name for some ways to subsample colour
        return None
    pixels_HWC.flags.writeable = False
    return pixels_HWC


def _header(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=formats)
