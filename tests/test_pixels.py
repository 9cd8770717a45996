"""The one decoder, and what of fetched bytes is stored."""

import base64
import hashlib
import io
import pickle
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.picture_layout import shrunk_size
from curation.fetch.pictures.strip_metadata import orientation, without_metadata
from curation.fetch.pictures.to_stored import to_stored
from schemas.pixels import MOST_PIXELS, VERSION, DecodeError, decode, picture_size, stored_format

GOLDEN_VERSION = 1
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQ"
    "YEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAMABAD"
    "ASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABQb/xAAaEAACAgMAAAAAAAAAAAAAAAAABAMiBSEx/8QAFQEBAQAAAAAAAAAAAAAAAAAAAAX/"
    "xAAaEQABBQEAAAAAAAAAAAAAAAAAAQIDBREx/9oADAMBAAIRAxEAPwCVUxPKjKuH5UZTWi1UdTVi1UkNmWTorLJ6Yf/Z"
)
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwAQCwwODAoQDg0OEhEQExgoGhgWFhgxIyUdKDozPTw5Mzg3QEhcTkBEV0U3OFBtUVdfYmdoZz5NcXlwZHhc"
    "ZWdj/8AAFAgADAAQBEMRAE0RAFkRAEsRAP/EABkAAAMAAwAAAAAAAAAAAAAAAAAGBwIEBf/EAB8QAAEEAQUBAAAAAAAAAAAAAAABAwVCERIUFVJi"
    "Av/aAA4EQwBNAFkASwAAPwBbhKnC4HwIrLWsoBQISocD4N5mO11An8JUomzZ6mMd8ouMgUCEqGzZ6jTHMNrjKAf/2Q=="
)
WEBP_WITH_ALPHA = base64.b64decode(
    "UklGRnwAAABXRUJQVlA4WAoAAAAQAAAADwAACwAAQUxQSBQAAAABuQpE9D8gJCBc8H+wJkdMQFKFXVZQOCBCAAAA8AEAnQEqEAAMAALATCWwAnS6"
    "AAMILi+AAP73s3QxEtZtq6ii6eWixYYkzHH7K0qQd1QVbfgx+7LfzsS+tOTrAAAA"
)


def png(width_px: int, height_px: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: the same bytes whatever Pillow's version."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width_px, height_px, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


GREY_16_BIT = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x12FF, 0xFE00))
ONE_PIXEL_EACH_ALPHA = png(3, 1, 8, 6, b"\0" + bytes([255, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 51]))
PALETTE_WITH_TRANSPARENCY = png(2, 1, 8, 3, b"\0\0\1", (b"PLTE", bytes([9, 8, 7, 200, 100, 50])), (b"tRNS", b"\0"))


def photo(side_px: tuple[int, int] = (40, 30)) -> Image.Image:
    """Soft spots of colour: no two corners are alike, and JPEG changes them little."""
    spots = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    return Image.fromarray(spots).resize(side_px, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def with_gps(turn: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = turn
    exif[271] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


@pytest.mark.parametrize(
    ("stored", "digest"),
    [
        (JPEG, "df13b71b0f392353"),
        (CMYK_JPEG, "40e26607030c5f58"),
        (WEBP_WITH_ALPHA, "4dc4b2da024f5fef"),
        (GREY_16_BIT, "2a5fbf4e3e741606"),
        (ONE_PIXEL_EACH_ALPHA, "bb94003dd9eaf66c"),
        (PALETTE_WITH_TRANSPARENCY, "54cd04d8c156851d"),
    ],
    ids=["jpeg", "cmyk", "webp", "grey16", "alpha", "palette"],
)
def test_pixels_of_a_version_never_change(stored: bytes, digest: str) -> None:
    pixels_HWC = decode(stored)
    assert pixels_HWC.dtype == np.uint8
    assert pixels_HWC.ndim == 3
    assert hashlib.sha256(pixels_HWC.tobytes()).hexdigest()[:16] == digest, "raise schemas.pixels.VERSION"
    assert VERSION == GOLDEN_VERSION


def test_alpha_lies_on_white() -> None:
    assert decode(ONE_PIXEL_EACH_ALPHA)[0].tolist() == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]
    assert decode(PALETTE_WITH_TRANSPARENCY)[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_sixteen_bits_keep_their_upper_eight() -> None:
    assert decode(GREY_16_BIT)[0].tolist() == [[0x12] * 3, [0xFE] * 3]


def test_format_and_size_come_from_the_header() -> None:
    stored = [JPEG, ONE_PIXEL_EACH_ALPHA, WEBP_WITH_ALPHA]
    assert [stored_format(s) for s in stored] == ["jpg", "png", "webp"]
    assert [picture_size(s) for s in stored] == [(16, 12), (3, 1), (16, 12)]
    with pytest.raises(DecodeError, match="no JPEG, PNG or WebP"):
        stored_format(b"GIF89a")


@pytest.mark.parametrize(("width_px", "height_px"), [(20_000, 1), (1, 20_000), (8_000, 8_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_announces_too_much_is_refused_before_decoding(width_px: int, height_px: int) -> None:
    bomb = png(width_px, height_px, 1, 0, b"")
    for decoder in (decode, to_stored):
        with pytest.raises(DecodeError) as caught:
            decoder(bomb)
        assert caught.value.status == "too_many_pixels"


@pytest.mark.parametrize(
    ("kind", "decoder"), [("GIF", to_stored), ("WEBP", to_stored), ("WEBP", decode), ("PNG", decode)]
)
def test_an_animation_counts_all_its_frames(kind: str, decoder: Callable[[bytes], object]) -> None:
    frames = [Image.new("L", (1000, 1000), i % 2 * 99 + i) for i in range(MOST_PIXELS // 10**6 + 1)]
    with pytest.raises(DecodeError, match="51 frame") as caught:
        decoder(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert caught.value.status == "too_many_pixels"


@pytest.mark.parametrize(
    ("fetched", "status"),
    [
        (b"", "not_an_image"),
        (b"<!doctype html><title>Not here</title>", "not_an_image"),
        (b"BM" + bytes(60), "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (JPEG[:200], "decode_error"),
        (JPEG[:20], "decode_error"),
        (b"\x89PNG\r\n\x1a\n", "decode_error"),
        (GREY_16_BIT[:-26], "decode_error"),
        (WEBP_WITH_ALPHA[:60], "decode_error"),
        (b"GIF89a", "decode_error"),
    ],
)
def test_what_is_no_whole_picture_fails_with_a_class_and_a_sentence(fetched: bytes, status: str) -> None:
    with pytest.raises(DecodeError) as caught:
        to_stored(fetched)
    assert caught.value.status == status
    assert " " in str(caught.value)


def test_a_failure_keeps_its_class_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("too big", "too_many_pixels")))
    assert (str(error), error.status) == ("too big", "too_many_pixels")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_needs_no_change_keeps_every_pixel_and_loses_its_metadata(kind: str) -> None:
    options = {"exif": with_gps(), "icc_profile": b"SecretProfile" * 20}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Author", "SecretName")
    else:
        options["xmp"] = b"<x:xmpmeta>SecretXmp</x:xmpmeta>"
    if kind == "JPEG":
        options["comment"] = b"SecretComment"
    fetched = encoded(photo(), kind, **options) + b"SecretTail"
    stored = to_stored(fetched, PictureForm(longest_side_px=40, shortest_side_px=40))
    assert b"Secret" in fetched
    assert b"Secret" not in stored.bytes
    assert b"Exif" not in stored.bytes
    with Image.open(io.BytesIO(fetched)) as before, Image.open(io.BytesIO(stored.bytes)) as after:
        assert not after.getexif()
        assert np.array_equal(np.asarray(before), np.asarray(after))
    assert stored.format == stored_format(stored.bytes)
    assert (stored.original_width_px, stored.original_height_px) == (40, 30)


def test_a_webp_header_does_not_announce_what_was_taken_out() -> None:
    bare = without_metadata(encoded(photo(), "WEBP", exif=with_gps(), xmp=b"<x/>", icc_profile=b"x" * 9))
    assert bare is not None
    assert bare.data[12:16] == b"VP8X"
    assert bare.data[20] == 0
    assert bare.exif


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
def test_every_way_of_writing_a_jpeg_passes_through(options: dict[str, object]) -> None:
    for image in (photo(), photo().convert("L"), photo().convert("CMYK")):
        fetched = encoded(image, "JPEG", exif=with_gps(), **options)
        stored = to_stored(fetched)
        assert len(stored.bytes) < len(fetched)
        assert np.array_equal(decode(fetched), decode(stored.bytes))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(kind: str, turn: int) -> None:
    from PIL import ImageOps

    fetched = encoded(photo((64, 48)), kind, exif=with_gps(turn))
    stored = to_stored(fetched)
    with Image.open(io.BytesIO(fetched)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    pixels_HWC = decode(stored.bytes).astype(int)
    assert (stored.original_width_px, stored.original_height_px) == upright.size
    assert stored.format == ("jpg" if turn > 1 else stored_format(fetched))
    assert np.abs(pixels_HWC - np.asarray(upright).astype(int)).mean() < 4
    with Image.open(io.BytesIO(stored.bytes)) as image:
        assert 274 not in image.getexif()


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_other_formats_become_jpeg(kind: str) -> None:
    stored = to_stored(encoded(photo((64, 48)), kind))
    assert (stored.format, picture_size(stored.bytes)) == ("jpg", (64, 48))


def test_an_animation_becomes_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    for kind in ("GIF", "WEBP"):
        stored = to_stored(encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))
        assert stored.format == "jpg"
        assert np.abs(decode(stored.bytes).astype(int) - [255, 0, 0]).max() <= 4


def test_a_shrunk_picture_looks_like_the_original_and_is_a_plain_jpeg() -> None:
    image = photo((640, 480))
    stored = to_stored(encoded(image, "PNG", exif=with_gps()), PictureForm(shortest_side_px=120))
    assert picture_size(stored.bytes) == (160, 120)
    expected = np.asarray(image.resize((160, 120), Image.Resampling.BOX)).astype(int)
    assert np.abs(decode(stored.bytes).astype(int) - expected).mean() < 3
    assert (stored.original_width_px, stored.original_height_px) == (640, 480)
    with Image.open(io.BytesIO(stored.bytes)) as after:
        assert not after.getexif()
        assert after.quantization == Image.open(io.BytesIO(encoded(image, "JPEG", quality=95))).quantization


def test_a_turned_picture_is_shrunk_by_its_upright_sides() -> None:
    stored = to_stored(encoded(photo((80, 40)), "JPEG", exif=with_gps(6)), PictureForm(longest_side_px=20))
    assert picture_size(stored.bytes) == (10, 20)


@given(*[st.integers(1, 16_384)] * 2, *[st.none() | st.integers(1, 16_384)] * 2)
def test_shrinking_keeps_both_limits_and_never_enlarges(
    w: int, h: int, longest: int | None, shortest: int | None
) -> None:
    width_px, height_px = shrunk_size(w, h, longest, shortest)
    assert 1 <= width_px <= w
    assert 1 <= height_px <= h
    assert longest is None or max(width_px, height_px) <= longest
    assert shortest is None or min(width_px, height_px) <= shortest
    reached = (longest and max(width_px, height_px) == longest) or (shortest and min(width_px, height_px) == shortest)
    assert (width_px, height_px) == (w, h) or reached


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    st.none() | st.integers(0, 5000),
)
def test_any_damage_ends_in_a_picture_or_a_failure(kind: str, changes: list[tuple[int, int]], cut: int | None) -> None:
    damaged = bytearray(encoded(photo((20, 10)), kind))
    for place, value in changes:
        damaged[place % len(damaged)] = value
    if cut is not None:
        del damaged[cut % len(damaged) :]
    for form in (PictureForm(), PictureForm(longest_side_px=7), PictureForm(resize="border", image_size_px=30)):
        try:
            stored = to_stored(bytes(damaged), form)
        except DecodeError:
            continue
        decode(stored.bytes)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("way", ["full", "scaled"])
def test_a_jpeg_that_is_cut_short_fails_and_never_ends_in_grey(options: dict, mode: str, way: str) -> None:
    whole = encoded(photo((300, 200)).convert(mode), "JPEG", **options)
    for form in (PictureForm(), PictureForm(longest_side_px=50, decode=way)):
        assert to_stored(whole, form)
        for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 200, len(whole) - 30):
            with pytest.raises(DecodeError) as caught:
                to_stored(whole[:cut], form)
            assert caught.value.status == "decode_error"


@pytest.mark.parametrize("factors", range(0x11, 0x45))
def test_every_way_to_subsample_colour_ends_in_a_picture_or_a_failure(factors: int) -> None:
    whole = encoded(photo((64, 48)), "JPEG", subsampling=0)
    start = whole.index(b"\xff\xc0") + 10  # per component: number, factors, table
    odd = whole[: start + 1] + bytes([factors]) + whole[start + 2 :]
    for form in (PictureForm(), PictureForm(longest_side_px=20)):
        try:
            assert decode(to_stored(odd, form).bytes).ndim == 3
        except DecodeError as error:
            assert error.status == "decode_error"  # noqa: PT017


def test_a_jpeg_with_rubbish_between_its_segments_is_still_a_picture() -> None:
    whole = encoded(photo((300, 200)), "JPEG", exif=with_gps(6))
    loose = whole[:2] + b"\xff\xff" + whole[2:]
    assert picture_size(to_stored(loose, PictureForm(longest_side_px=30)).bytes) == (20, 30)
    assert picture_size(to_stored(loose).bytes) == (200, 300)


@given(st.binary(max_size=200))
def test_any_exif_tells_some_orientation(exif: bytes) -> None:
    assert 1 <= orientation(b"Exif\0\0MM\0*" + exif) <= 8
    assert 1 <= orientation(b"II*\0" + exif) <= 8


def test_the_preview_inside_a_jfif_header_goes() -> None:
    preview = b"\xff\xe0" + struct.pack(">H", 16 + 27) + JPEG[6:18] + b"\x03\x03" + b"Secret123" * 3
    bare = without_metadata(b"\xff\xd8" + preview + JPEG[20:])
    assert bare is not None
    assert bare.data == JPEG
