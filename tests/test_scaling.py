"""Scaling of our own gives what OpenCV's gives, within one grey level."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.pictures.area import shrink
from curation.fetch.pictures.lanczos import enlarge

CHANNELS = st.sampled_from([1, 3])
SIDES = st.integers(1, 150)
SEEDS = st.integers(0, 2**32 - 1)


def noise(height_px: int, width_px: int, channels: int, seed: int = 0) -> np.ndarray:
    """Pixels as unlike their neighbours as can be: every other seed has only black and white."""
    generator = np.random.default_rng(seed)
    if seed % 2:
        return generator.integers(0, 2, (height_px, width_px, channels), np.uint8) * 255
    return generator.integers(0, 256, (height_px, width_px, channels), np.uint8)


def difference(ours: np.ndarray, source: np.ndarray, kind: int) -> int:
    """The largest difference to OpenCV's result, in grey levels."""
    theirs = cv2.resize(source, ours.shape[1::-1], interpolation=kind).reshape(ours.shape)
    assert ours.dtype == np.uint8
    return int(np.abs(ours.astype(int) - theirs).max())


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, CHANNELS, st.data(), SEEDS)
def test_an_area_average_is_opencvs(
    height_px: int, width_px: int, channels: int, data: st.DataObject, seed: int
) -> None:
    source = noise(height_px, width_px, channels, seed)
    to = data.draw(st.integers(1, width_px)), data.draw(st.integers(1, height_px))
    assert difference(shrink(source, *to), source, cv2.INTER_AREA) <= 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), CHANNELS, SEEDS)
def test_whole_factors_are_averaged_like_opencv(
    rows: int, columns: int, down: int, across: int, channels: int, seed: int
) -> None:
    source = noise(rows * down, columns * across, channels, seed)
    assert difference(shrink(source, columns, rows), source, cv2.INTER_AREA) <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("source", "to"),
    [
        ((768, 1024), (341, 256)),
        ((2400, 3200), (341, 256)),
        ((512, 512), (256, 256)),
        ((513, 511), (510, 512)),
        ((4000, 3), (1, 256)),
        ((1, 4000), (256, 1)),
        ((2000, 2000), (1, 1)),
        ((300, 301), (300, 7)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_pictures_of_the_web_are_averaged_like_opencv(
    source: tuple[int, int], to: tuple[int, int], channels: int, seed: int
) -> None:
    pixels_HWC = noise(*source, channels, seed)
    assert difference(shrink(pixels_HWC, *to), pixels_HWC, cv2.INTER_AREA) <= 1


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, CHANNELS, st.data(), SEEDS)
def test_enlarging_is_opencvs(height_px: int, width_px: int, channels: int, data: st.DataObject, seed: int) -> None:
    source = noise(height_px, width_px, channels, seed)
    to = data.draw(st.integers(width_px, 5 * width_px)), data.draw(st.integers(height_px, 5 * height_px))
    assert difference(enlarge(source, *to), source, cv2.INTER_LANCZOS4) <= 1


def test_flat_pictures_stay_flat() -> None:
    for level in (0, 1, 127, 254, 255):
        source = np.full((97, 131, 3), level, np.uint8)
        assert (shrink(source, 60, 41) == level).all()
        assert set(np.unique(enlarge(source, 200, 150))) <= {max(0, level - 1), level}  # OpenCV's weights lose a little


def test_neither_touches_its_source_nor_needs_it_in_one_piece() -> None:
    whole = noise(60, 90, 3)
    part, before = whole[5:55, 10:80], whole.copy()
    assert np.array_equal(shrink(part, 30, 20), shrink(part.copy(), 30, 20))
    assert np.array_equal(enlarge(part, 99, 88), enlarge(part.copy(), 99, 88))
    assert np.array_equal(whole, before)
    part.flags.writeable = False
    assert shrink(part, 30, 20).shape == (20, 30, 3)
