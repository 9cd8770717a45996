"""The form that `download` stores pictures in: modes and limits as img2dataset has them, and our own.

Sizes, pixels and refusals of img2dataset were recorded from its own Resizer, version 1.47.0.
"""

import io
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydantic import ValidationError

from curation.fetch.pictures.picture_form import PictureForm
from curation.fetch.pictures.picture_layout import layout
from curation.fetch.pictures.readiness import make_ready
from curation.fetch.pictures.to_stored import to_stored
from curation.operators.download import Download
from schemas.errors import RunError
from schemas.pixels import DecodeError, decode, picture_size, stored_format

SIZES = [(640, 480), (480, 640), (641, 427), (100, 50), (50, 100), (256, 256), (257, 256), (256, 300)]
SIZES += [(255, 511), (513, 255), (333, 999), (128, 77), (1000, 3), (3, 1000)]
SQUARE = [(256, 256)]
RECORDED = {  # resize, resize_only_if_bigger: what became of SIZES at image_size 256
    ("no", False): SIZES,
    ("border", False): SQUARE * 14,
    ("border", True): [*SQUARE * 3, (100, 50), (50, 100), *SQUARE * 6, (128, 77), *SQUARE * 2],
    ("center_crop", False): SQUARE * 14,
    ("center_crop", True): [*SQUARE * 3, *SIZES[3:10], (256, 256), *SIZES[11:]],
    ("keep_ratio", False): [
        *[(341, 256), (256, 341), (384, 256), (512, 256), (256, 512), (256, 256), (257, 256), (256, 300)],
        *[(256, 513), (515, 256), (256, 768), (426, 256), (85333, 256), (256, 85333)],
    ],
    ("keep_ratio", True): [(341, 256), (256, 341), (384, 256), *SIZES[3:10], (256, 768), *SIZES[11:]],
    ("keep_ratio_largest", False): [
        *[(256, 192), (192, 256), (256, 171), (256, 128), (128, 256), (256, 256), (256, 255), (218, 256)],
        *[(128, 256), (256, 127), (85, 256), (256, 154), (256, 1), (1, 256)],
    ],
    ("keep_ratio_largest", True): [
        *[(256, 192), (192, 256), (256, 171), (100, 50), (50, 100), (256, 256), (256, 255), (218, 256)],
        *[(128, 256), (256, 127), (85, 256), (128, 77), (256, 1), (1, 256)],
    ],
}
RECORDED_PIXELS = [  # resize, size of `pattern`, stored size, its first, middle and last pixel; image_size 6
    ("border", (12, 9), (6, 6), [255, 255, 255], [61, 68, 109], [255, 255, 255]),
    ("border", (9, 12), (6, 6), [255, 255, 255], [55, 59, 109], [255, 255, 255]),
    ("border", (5, 3), (6, 6), [255, 255, 255], [21, 13, 39], [255, 255, 255]),
    ("border", (13, 4), (6, 6), [255, 255, 255], [57, 63, 155], [255, 255, 255]),
    ("keep_ratio", (12, 9), (8, 6), [3, 2, 1], [58, 64, 69], [98, 152, 132]),
    ("keep_ratio", (9, 12), (6, 8), [3, 2, 1], [52, 54, 69], [86, 112, 132]),
    ("keep_ratio", (5, 3), (10, 6), [0, 0, 0], [20, 12, 33], [35, 27, 93]),
    ("keep_ratio", (13, 4), (20, 6), [0, 0, 0], [50, 49, 125], [94, 161, 162]),
    ("keep_ratio_largest", (12, 9), (6, 4), [6, 4, 4], [61, 68, 109], [96, 147, 107]),
    ("keep_ratio_largest", (9, 12), (4, 6), [6, 3, 4], [55, 59, 109], [83, 107, 107]),
    ("keep_ratio_largest", (5, 3), (6, 4), [0, 0, 0], [21, 13, 39], [34, 27, 91]),
    ("keep_ratio_largest", (13, 4), (6, 2), [6, 3, 3], [57, 63, 155], [87, 142, 126]),
    ("center_crop", (12, 9), (6, 6), [13, 5, 6], [58, 64, 69], [88, 126, 76]),
    ("center_crop", (9, 12), (6, 6), [7, 9, 6], [52, 54, 69], [82, 106, 76]),
    ("center_crop", (5, 3), (6, 6), [5, 0, 0], [20, 12, 33], [29, 21, 75]),
    ("center_crop", (13, 4), (6, 6), [31, 19, 0], [50, 49, 125], [63, 73, 78]),
]
ASKED = [(10, 10), (9, 12), (12, 9), (11, 10), (12, 10), (13, 10), (10, 11)]
RECORDED_REFUSALS = [  # a limit, our status, which of ASKED were refused
    ({"min_image_size_px": 10}, "too_small", [False, True, True, False, False, False, False]),
    ({"max_image_area_px": 100}, "too_large_area", [False, True, True, True, True, True, True]),
    ({"max_aspect_ratio": 1.2}, "bad_aspect_ratio", [False, True, True, False, False, True, False]),
]


def pattern(width_px: int, height_px: int) -> np.ndarray:
    y, x = np.mgrid[0:height_px, 0:width_px]
    return np.stack([(x * 7 + y * 3) % 256, (x * x + 5 * y) % 256, (x * y * 11) % 256], -1).astype(np.uint8)


def soft(width_px: int, height_px: int, channels: int = 3) -> np.ndarray:
    spots = np.random.default_rng(0).integers(0, 255, (4, 5, channels), np.uint8)
    image = Image.fromarray(spots.squeeze()).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.asarray(image)


def file(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, **options)
    return target.getvalue()


def status(fetched: bytes, form: PictureForm) -> str:
    try:
        to_stored(fetched, form)
    except DecodeError as error:
        return error.status
    return "ok"


@pytest.mark.parametrize(("resize", "only_if_bigger"), RECORDED)
def test_sizes_are_img2datasets(resize: str, only_if_bigger: bool) -> None:
    size = {} if resize == "no" else {"image_size_px": 256, "resize_only_if_bigger": only_if_bigger}
    form = PictureForm(resize=resize, **size)
    assert [layout(source, form).frame for source in SIZES] == RECORDED[resize, only_if_bigger]


@pytest.mark.parametrize(("resize", "source", "size", "first", "middle", "last"), RECORDED_PIXELS)
def test_pixels_are_img2datasets_within_one_level(
    resize: str, source: tuple[int, int], size: tuple[int, int], first: list[int], middle: list[int], last: list[int]
) -> None:
    form = PictureForm(resize=resize, image_size_px=6, encode_format="png")
    pixels_HWC = decode(to_stored(file(pattern(*source)), form).bytes).astype(int)
    assert pixels_HWC.shape[1::-1] == size
    found = pixels_HWC[0, 0], pixels_HWC[size[1] // 2, size[0] // 2], pixels_HWC[-1, -1]
    assert np.abs(np.array(found) - [first, middle, last]).max() <= 1


@pytest.mark.parametrize(("limit", "refused_as", "refused"), RECORDED_REFUSALS)
def test_pictures_are_refused_as_by_img2dataset(limit: dict, refused_as: str, refused: list[bool]) -> None:
    form = PictureForm(**limit)
    found = [status(file(pattern(*size)), form) for size in ASKED]
    assert found == [refused_as if no else "ok" for no in refused]


def test_a_refused_picture_is_not_even_decoded() -> None:
    cut = file(soft(300, 200), "JPEG")[:-2000]
    assert status(cut, PictureForm(min_image_size_px=201)) == "too_small"
    assert status(cut, PictureForm()) == "decode_error"


def test_a_thin_line_is_not_enlarged_without_bounds() -> None:
    form = PictureForm(resize="keep_ratio", image_size_px=256)
    assert status(file(pattern(1000, 3)), form) == "too_many_pixels"
    assert status(file(pattern(2000, 40)), PictureForm(resize="keep_ratio", image_size_px=2000)) == "too_many_pixels"


@pytest.mark.parametrize("resize", ["keep_ratio", "keep_ratio_largest", "border", "center_crop"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_is_stored_as_its_upright_one(resize: str, turn: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    turned = file(soft(97, 61), exif=exif)
    with Image.open(io.BytesIO(turned)) as image:
        upright = file(np.asarray(ImageOps.exif_transpose(image)))
    for image_size_px in (40, 120):
        form = PictureForm(resize=resize, image_size_px=image_size_px, encode_format="png")
        found, expected = (decode(to_stored(data, form).bytes).astype(int) for data in (turned, upright))
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("resize", ["no", "keep_ratio"])
@pytest.mark.parametrize("quality", [95, 60])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_from_a_jpeg_is_opencvs(resize: str, quality: int, channels: int) -> None:
    for source in (soft(400, 300, channels), np.random.default_rng(1).integers(0, 256, (300, 400, channels), np.uint8)):
        fetched = file(source.squeeze(), "JPEG", quality=85)
        size = {} if resize == "no" else {"image_size_px": 100}
        form = PictureForm(resize=resize, encode_quality=quality, skip_reencode=False, **size)
        stored = to_stored(fetched, form)
        theirs = cv2.imdecode(np.frombuffer(fetched, np.uint8), cv2.IMREAD_UNCHANGED)
        if resize != "no":
            theirs = cv2.resize(theirs, (133, 100), interpolation=cv2.INTER_AREA)
        expected = cv2.imencode(".jpg", theirs, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        a, b = (decode(data).astype(int) for data in (stored.bytes, expected))
        assert np.abs(a - b).mean() < 1  # files of pixels that differ by at most one level
        if resize == "no":
            assert stored.bytes == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixels_is_averaged_as_our_decoder_sees_it(kind: str, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (31, 47, 4), np.uint8)
    image = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    if mode != "I;16":
        whole = Image.fromarray(values)
        image = (whole if mode in ("LA", "PA", "RGBA") else whole.convert("RGB")).convert(mode)
    target = io.BytesIO()
    try:
        image.save(target, kind, **({"lossless": True} if kind == "WEBP" else {}))
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    if kind == "GIF":
        with Image.open(target) as first:
            target = io.BytesIO()
            first.convert("RGBA").save(target, "PNG")
    stored = to_stored(target.getvalue(), PictureForm(longest_side_px=19, encode_format="png"))
    expected = cv2.resize(decode(target.getvalue()), (19, 13), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(decode(stored.bytes) - expected).max() <= 1


@pytest.mark.parametrize("name", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_every_format_becomes_the_one_asked_for(kind: str, name: str) -> None:
    fetched = file(soft(64, 48), kind)
    stored = to_stored(fetched, PictureForm(encode_format=name))
    assert stored.format == stored_format(stored.bytes) == name
    assert picture_size(stored.bytes) == (64, 48)
    with Image.open(io.BytesIO(fetched)) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode(stored.bytes) - expected).mean() < 5  # GIF's dots are what JPEG and WebP change most
    kept = kind == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[name]
    assert (stored.bytes == fetched) == kept or kind == "PNG"
    anew = to_stored(fetched, PictureForm(encode_format=name, skip_reencode=False))
    assert anew.bytes != fetched


def test_quality_is_heeded() -> None:
    fetched = file(pattern(200, 150))
    for name, low, high in (("jpg", 30, 95), ("webp", 30, 95), ("png", 9, 0)):
        small, large = (
            to_stored(fetched, PictureForm(encode_format=name, encode_quality=quality, skip_reencode=False)).bytes
            for quality in (low, high)
        )
        assert len(small) < len(large)


def test_without_reencoding_pictures_lose_their_metadata_only() -> None:
    exif = Image.Exif()
    exif[274], exif[271] = 6, "SecretCamera"
    fetched = file(soft(64, 48), "JPEG", exif=exif)
    stored = to_stored(fetched, PictureForm(disable_all_reencoding=True))
    assert b"Secret" not in stored.bytes
    assert picture_size(stored.bytes) == (64, 48)  # img2dataset turns none either
    assert np.array_equal(decode(stored.bytes), decode(fetched))
    for kind in ("GIF", "AVIF"):
        assert status(file(soft(64, 48), kind), PictureForm(disable_all_reencoding=True)) == "needs_reencoding"
    assert status(fetched[:-500], PictureForm(disable_all_reencoding=True)) == "decode_error"


def test_decoding_at_a_reduced_scale_leaves_a_margin_and_changes_little() -> None:
    fetched = file(soft(1200, 900), "JPEG")
    full, reduced = (
        decode(to_stored(fetched, PictureForm(shortest_side_px=100, decode=way)).bytes).astype(int)
        for way in ("full", "scaled")
    )
    assert full.shape == reduced.shape
    assert 0 < np.abs(full - reduced).max() <= 6


def have_turbojpeg() -> bool:
    from curation.fetch.pictures.libturbojpeg import turbojpeg

    try:
        turbojpeg()
    except RunError:
        return False
    return True


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(401, 301), (400, 300), (300, 401)])
@pytest.mark.parametrize("turn", [1, 6])
def test_planes_made_smaller_apart_change_little(subsampling: int, size: tuple[int, int], turn: int) -> None:
    if not have_turbojpeg():
        pytest.skip("no libturbojpeg")
    exif = Image.Exif()
    exif[274] = turn
    fetched = file(soft(*size), "JPEG", subsampling=subsampling, exif=exif)
    for side_px in (100, 99):
        full, planes = (
            decode(to_stored(fetched, PictureForm(shortest_side_px=side_px, decode=way)).bytes).astype(int)
            for way in ("full", "planes")
        )
        assert full.shape == planes.shape
        assert np.abs(full - planes).mean() < 2
    assert status(fetched[:-2000], PictureForm(shortest_side_px=99, decode="planes")) == "decode_error"


def test_planes_without_their_library_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from curation.fetch.pictures import libturbojpeg

    monkeypatch.setattr(libturbojpeg, "_FILES", ("libnothing.so.0",))
    libturbojpeg.turbojpeg.cache_clear()
    try:
        with pytest.raises(RunError, match="decode: full"):
            to_stored(file(soft(40, 30), "JPEG"), PictureForm(decode="planes"))
        with pytest.raises(RunError, match="libturbojpeg"):
            Download(decode="planes").open()
    finally:
        libturbojpeg.turbojpeg.cache_clear()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"resize": "border"}, "needs image_size_px"),
        ({"resize": "keep_ratio", "image_size_px": 256, "longest_side_px": 9}, "say one of them"),
        ({"image_size_px": 256}, "image_size_px belongs to resize"),
        ({"resize": "no", "image_size_px": 256}, "image_size_px belongs to resize"),
        ({"resize_only_if_bigger": True}, "resize_only_if_bigger belongs to resize"),
        ({"encode_format": "png", "encode_quality": 95}, "lies from 0 to 9"),
        ({"encode_quality": 0}, "lies from 1 to 100"),
        ({"disable_all_reencoding": True, "longest_side_px": 9}, "longest_side_px encodes pictures anew"),
        ({"disable_all_reencoding": True, "skip_reencode": False}, "skip_reencode: false encodes"),
        ({"resize": "squash", "image_size_px": 9}, "keep_ratio"),
        ({"max_aspect_ratio": 0.5}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_sentence(wrong: dict[str, object], sentence: str) -> None:
    for kind in (PictureForm, Download):
        with pytest.raises(ValidationError, match=sentence):
            kind(**wrong)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 600), st.booleans())
def test_a_side_lies_where_its_mode_says(width_px: int, height_px: int, aim_px: int, only_if_bigger: bool) -> None:
    for resize, side in (("keep_ratio", min), ("keep_ratio_largest", max)):
        form = PictureForm(resize=resize, image_size_px=aim_px, resize_only_if_bigger=only_if_bigger)
        found = layout((width_px, height_px), form)
        kept = only_if_bigger and side(width_px, height_px) <= aim_px
        assert side(found.frame) == (side(width_px, height_px) if kept else aim_px)
        assert found.shrinks == (found.changes and side(width_px, height_px) > aim_px)


def test_a_form_goes_between_processes() -> None:
    form = PictureForm(resize="border", image_size_px=256)
    assert pickle.loads(pickle.dumps(form)) == form
    assert hash(form) == hash(PictureForm(resize="border", image_size_px=256))


def test_once_ready_nothing_is_compiled_any_more() -> None:
    from curation.fetch.pictures import area, lanczos, plain_png

    def compiled() -> dict[str, int]:
        functions = [f for module in (area, lanczos, plain_png) for f in vars(module).values()]
        return {f.__name__: len(f.signatures) for f in functions if hasattr(f, "signatures")}

    make_ready(PictureForm())
    before = compiled()
    assert before["_shrink"] == before["_enlarge"] == before["_undo_filters"] == 1
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF"):
        for pixels in (soft(64, 48), soft(64, 48, 1)):
            for form in (PictureForm(shortest_side_px=20), PictureForm(resize="border", image_size_px=99)):
                to_stored(file(pixels, kind), form)
    to_stored(png_of_16_bits(), PictureForm(resize="border", image_size_px=99))
    assert compiled() == before


def png_of_16_bits() -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(target, "PNG")
    return target.getvalue()
