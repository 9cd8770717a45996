"""Quick ways to a model's pixels that change none of them, and the one that does, because it is asked to."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from schemas import bicubic
from schemas.picture_transform import square
from schemas.pixels import DecodeError, decode, on_white, open_picture


def hard(seed: int, height: int, width: int) -> np.ndarray:
    """Black and white in single pixels and in blocks: what rings most, so that every rounding and clipping shows."""
    random = np.random.default_rng(seed)
    coarse = random.choice([0, 255], (height // 5 + 1, width // 5 + 1, 3)).repeat(5, 0).repeat(5, 1)[:height, :width]
    fine = random.integers(0, 256, (height, width, 3))
    return np.where(random.random((height, width, 1)) < 0.5, coarse, fine).astype(np.uint8)


def jpeg(pixels_HWC: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_HWC).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def pillows(stored: bytes) -> np.ndarray:
    """The pixels as Pillow alone decodes them."""
    with open_picture(stored) as image:
        return np.asarray(on_white(image))


def told(decoder: Callable[[bytes], np.ndarray], stored: bytes) -> object:
    """The pixels in a form that compares, or the words of the refusal."""
    try:
        return decoder(stored).tolist()
    except DecodeError as error:
        return str(error)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 500), width=st.integers(1, 500), side_px=st.sampled_from([16, 32, 96, 224]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_square_has_the_bits_of_torchvision(height: int, width: int, side_px: int, seed: int) -> None:
    if max(height, width) > 20 * min(height, width):
        return  # of strips the middle is taken first
    pixels_HWC = hard(seed, height, width)
    theirs = Compose([Resize(side_px, interpolation=InterpolationMode.BICUBIC), CenterCrop(side_px)])
    assert np.array_equal(square(pixels_HWC, side_px), np.asarray(theirs(Image.fromarray(pixels_HWC))))


def test_usual_pictures_are_resized_by_the_quick_way() -> None:
    usual = [(256, 341), (341, 256), (384, 512), (480, 640), (900, 1200), (1024, 1024), (448, 225)]
    assert all(bicubic.takes(h, w, (224, h * 224 // w) if w <= h else (w * 224 // h, 224)) for h, w in usual)
    assert not bicubic.takes(1000, 300, (224, 746))  # Pillow goes down first
    assert not bicubic.takes(100, 200, (448, 224))  # enlarged


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), mode=st.sampled_from(["RGB", "L", "CMYK"]),
    subsampling=st.sampled_from([0, 1, 2]), quality=st.integers(5, 95), progressive=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_jpeg_has_the_bits_that_pillow_gives_it(
    height: int, width: int, mode: str, subsampling: int, quality: int, progressive: bool, seed: int
) -> None:
    stored = jpeg(hard(seed, height, width), mode, subsampling=subsampling, quality=quality, progressive=progressive)
    found = decode(stored)
    assert np.array_equal(found, pillows(stored))
    assert found.shape == (height, width, 3)
    assert not found.flags.writeable


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(2, 3000), st.integers(0, 255)), max_size=3),
    cut=st.none() | st.integers(2, 3000), progressive=st.booleans(),
)  # fmt: skip
def test_a_damaged_jpeg_is_what_pillow_says_it_is(
    changes: list[tuple[int, int]], cut: int | None, progressive: bool
) -> None:
    stored = bytearray(jpeg(hard(0, 40, 60), quality=60, progressive=progressive))
    for place, value in changes:
        stored[place % len(stored)] = value
    damaged = bytes(stored[:cut])
    assert told(decode, damaged) == told(pillows, damaged)


@pytest.mark.parametrize(
    ("size", "least", "decoded"),
    [
        ((900, 1200), 448, (450, 600)), ((900, 1200), 451, (900, 1200)), ((1200, 900), 224, (300, 225)),
        ((2000, 3000), 448, (500, 750)), ((300, 400), 448, (300, 400)), ((897, 1201), 448, (449, 601)),
    ],
)  # fmt: skip
def test_scaled_decoding_keeps_the_shorter_side_as_long_as_asked(
    size: tuple[int, int], least: int, decoded: tuple[int, int]
) -> None:
    assert decode(jpeg(hard(1, *size)), least).shape == (*decoded, 3)


def test_scaled_decoding_looks_like_the_whole_picture() -> None:
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    whole_HWC = np.asarray(Image.fromarray(small).resize((1200, 900), Image.Resampling.BICUBIC))
    stored = jpeg(whole_HWC, quality=90)
    full_HWC, scaled_HWC = (square(decode(stored, least), 224).astype(int) for least in (None, 448))
    assert np.abs(full_HWC - scaled_HWC).mean() < 1.0
    assert not np.array_equal(full_HWC, scaled_HWC)


def test_what_is_no_plain_jpeg_is_decoded_whole() -> None:
    stream = io.BytesIO()
    Image.fromarray(hard(1, 900, 1200)).save(stream, "PNG")
    for stored in (stream.getvalue(), jpeg(hard(1, 900, 1200), "CMYK")):
        assert np.array_equal(decode(stored, 448), decode(stored))
