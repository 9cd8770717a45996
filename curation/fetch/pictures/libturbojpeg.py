"""The system's libturbojpeg, which `decode: planes` needs and no Python package brings."""

import ctypes
import functools

from curation.fetch.pictures.picture_form import PictureForm
from schemas.errors import RunError

_FILES = ("libturbojpeg.so.0", "libturbojpeg.so", "libturbojpeg.dylib", "turbojpeg.dll")


def require_decoder(form: PictureForm) -> None:
    """Raise RunError where this machine lacks what the form needs: it must not store other bytes in silence."""
    if form.decode == "planes":
        turbojpeg()


@functools.cache
def turbojpeg() -> ctypes.CDLL:
    """The system's libturbojpeg. Raises RunError where there is none."""
    for file in _FILES:
        try:
            library = ctypes.CDLL(file)
        except OSError:
            continue
        for name in ("tjInitDecompress", "tjInitCompress"):
            getattr(library, name).restype = ctypes.c_void_p
        return library
    raise RunError(
        "decode: planes needs the library libturbojpeg, which this machine lacks; install it "
        "(Debian and Ubuntu: libturbojpeg0, conda: libjpeg-turbo) or say decode: full"
    )
