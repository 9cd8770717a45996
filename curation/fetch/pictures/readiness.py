"""What a process needs before it decodes pictures: libraries loaded, code compiled, nothing left to be done later."""

import functools
import io

import numpy as np
from PIL import Image

from curation.fetch.pictures.libturbojpeg import require_decoder
from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.to_stored import to_stored


@functools.cache
def make_ready(form: PictureForm) -> None:
    """Decode, scale and encode a tiny picture of every kind, so that a process may be locked up afterwards.

    Compiled code is read from numba's cache, or compiled and written there (for ten seconds, the first time on a
    machine): a process that may open or create no file cannot do that later. Raises RunError.
    """
    require_decoder(form)
    smaller = PictureForm(longest_side_px=9, encode_format=form.encode_format, decode=form.decode)
    larger = PictureForm(resize="keep_ratio", image_size_px=30)
    for fetched in _tiny_pictures():
        for way in (smaller, larger):
            to_stored(fetched, way)


_MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("L", "LA", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P",),
    "AVIF": ("RGB",),
}


def _tiny_pictures() -> list[bytes]:
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 23, 4), np.uint8))
    return [_file(whole, kind, mode) for kind, modes in _MODES.items() for mode in modes]


def _file(whole: Image.Image, kind: str, mode: str) -> bytes:
    target = io.BytesIO()
    (whole.convert("RGB").convert(mode) if mode == "CMYK" else whole.convert(mode)).save(target, kind)
    return target.getvalue()
