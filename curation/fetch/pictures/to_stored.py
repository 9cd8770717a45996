"""From fetched bytes to stored bytes: what a picture of the pool is, wherever it came from.

A JPEG, PNG or WebP that needs no change is stored as it came, without metadata. What is of another size or format,
turned, animated or loosely built is encoded anew (JPEG of quality 95 unless the form says otherwise), alpha on white,
orientation applied. Every picture is decoded in full once, so that whatever is stored can be decoded again. What
stands here is part of `download`'s version: captured bytes are not compared, but a fingerprint must not mean two
things.
"""

from dataclasses import dataclass

from curation.fetch.pictures.libturbojpeg import require_decoder
from curation.fetch.pictures.opened_picture import OpenedPicture, open_fetched
from curation.fetch.pictures.picture_form import AS_THEY_COME, PictureForm
from curation.fetch.pictures.picture_layout import Layout, Size, layout
from curation.fetch.pictures.pixel_changes import encoded, framed, scaled, turned, turned_size
from schemas.pixels import DecodeError, require_within_limits

NEEDS_REENCODING = "needs_reencoding"
_MARGIN = 2  # a JPEG decoded by the DCT to less than this many times its target visibly differs


@dataclass(frozen=True)
class Stored:
    """A picture as the pool keeps it; the original's size is that of the fetched picture, orientation applied."""

    bytes: bytes
    format: str  # jpg, png or webp
    original_width_px: int
    original_height_px: int


def to_stored(fetched: bytes, form: PictureForm = AS_THEY_COME) -> Stored:
    """The stored form of fetched bytes.

    Raises schemas.pixels.DecodeError with status `not_an_image`, `decode_error` or `too_many_pixels`, and, where the
    form asks for them, `too_small`, `too_large_area`, `bad_aspect_ratio` or `needs_reencoding`.
    """
    require_decoder(form)
    with open_fetched(fetched) as picture:
        width_px, height_px = turned_size(picture.size, picture.turn)
        form.require_wanted(width_px, height_px)
        wanted = layout((width_px, height_px), form)
        for size in (wanted.scaled, wanted.frame):
            require_within_limits(*size)  # enlarging a thin line can take any amount of memory
        data, name = _as_it_came(picture, wanted, form) or _anew(picture, wanted, form)
        return Stored(data, name, width_px, height_px)


def _as_it_came(picture: OpenedPicture, wanted: Layout, form: PictureForm) -> tuple[bytes, str] | None:
    """The bytes without metadata and their format; None where they must be encoded anew."""
    if wanted.changes or not (form.disable_all_reencoding or picture.turn == 1):
        return None
    bare = picture.bare
    if bare is None and form.disable_all_reencoding:
        raise DecodeError("without its metadata the picture would have to be encoded anew", NEEDS_REENCODING)
    if bare is None or not form.keeps_format(bare.format):
        return None
    picture.require_decodable()
    return bare.data, bare.format


def _anew(picture: OpenedPicture, wanted: Layout, form: PictureForm) -> tuple[bytes, str]:
    """The picture in its wanted layout and the format it is encoded in."""
    target = turned_size(wanted.scaled, picture.turn)
    if form.decode == "planes" and _fits_planes(picture, wanted, form):
        jpeg = _by_planes(picture, target, form.quality)
        if jpeg is not None:
            return jpeg, "jpg"
    by_dct = form.decode == "scaled" and wanted.shrinks
    pixels_HWC = scaled(picture.pixels((_MARGIN * target[0], _MARGIN * target[1]) if by_dct else None), target)
    upright_HWC = framed(turned(pixels_HWC, picture.turn), wanted.frame)
    return encoded(upright_HWC, form.encoded_as, form.quality), form.encoded_as


def _fits_planes(picture: OpenedPicture, wanted: Layout, form: PictureForm) -> bool:
    """Whether nothing is asked for that colour of half the size makes difficult: odd pictures turned, cut or padded."""
    as_it_lies = picture.turn == 1 and wanted.frame == wanted.scaled
    return as_it_lies and wanted.shrinks and form.encoded_as == "jpg"


def _by_planes(picture: OpenedPicture, target: Size, quality: int) -> bytes | None:
    """The JPEG of that size made from a JPEG's planes; None where there are none."""
    from curation.fetch.pictures.jpeg_planes import encode_planes, shrink_planes

    planes = picture.planes()
    return None if planes is None else encode_planes(shrink_planes(planes, target), quality)
