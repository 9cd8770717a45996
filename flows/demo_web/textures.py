"""Textured backgrounds: muted patterns under slow clouds, so that the perceptual hashes of two pictures stay apart."""

import colorsys

import numpy as np
from PIL import Image, ImageChops

_CLOUD_CELLS = 6  # per side; this is what a 64-bit pHash sees, finer texture averages out in its 32 × 32 pixels


def background(kind: str, width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
    """A background of that kind in RGB; hue, frequency, phase and direction are random."""
    pattern = _PATTERNS[kind](width_px, height_px, rng)
    dark, light = (Image.new("RGB", pattern.size, colour) for colour in _muted_colours(rng))
    shade = _clouds(width_px, height_px, rng, _CLOUD_CELLS, darkest=100)
    return ImageChops.multiply(Image.composite(light, dark, pattern), Image.merge("RGB", [shade] * 3))


def _clouds(width_px: int, height_px: int, rng: np.random.Generator, cells: int, darkest: int = 0) -> Image.Image:
    """Smooth noise in grey, from `darkest` to 255."""
    grid = Image.fromarray(rng.integers(darkest, 256, (cells, cells), np.uint8))
    return grid.resize((width_px, height_px), Image.Resampling.BICUBIC)


def _striped(width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
    along_HW, _ = _turned_axes(width_px, height_px, rng)
    return _with_edges(np.sin(along_HW))


def _checked(width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
    along_HW, across_HW = _turned_axes(width_px, height_px, rng)
    return _with_edges(np.sin(along_HW) * np.sin(across_HW))


def _dotted(width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
    along_HW, across_HW = _turned_axes(width_px, height_px, rng)
    return _with_edges(np.cos(along_HW) + np.cos(across_HW) - 0.9)


def _cloudy(width_px: int, height_px: int, rng: np.random.Generator) -> Image.Image:
    return Image.blend(_clouds(width_px, height_px, rng, 5), _clouds(width_px, height_px, rng, 14), 0.45)


_PATTERNS = {"striped": _striped, "checked": _checked, "dotted": _dotted, "cloudy": _cloudy}


def _turned_axes(width_px: int, height_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phases in radians along a random direction and across it; 5 to 9 periods per shorter side."""
    turn, first, second = rng.uniform(0, 2 * np.pi, 3)
    per_px = 2 * np.pi * rng.uniform(5, 9) / min(width_px, height_px)
    x_W = np.arange(width_px, dtype=np.float32) * np.float32(per_px)
    y_H1 = np.arange(height_px, dtype=np.float32)[:, None] * np.float32(per_px)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return x_W * cos + y_H1 * sin + np.float32(first), y_H1 * cos - x_W * sin + np.float32(second)


def _with_edges(wave_HW: np.ndarray) -> Image.Image:
    """A wave as a grey pattern whose flanks are made steep: sharp borders, a little smoothed."""
    return Image.fromarray(np.clip(wave_HW * 765 + 128, 0, 255).astype(np.uint8))


def _muted_colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two greyish colours, the darker one first; a saturated shape stands out from both."""
    dark = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.38, 0.55))
    light = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.25), rng.uniform(0.72, 0.92))
    return tuple(round(255 * part) for part in dark), tuple(round(255 * part) for part in light)
