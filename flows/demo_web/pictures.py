"""Pictures from a seed: one coloured shape on a textured background, in the sizes and formats of the web."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from flows.demo_web.scenes import Scene
from flows.demo_web.textures import background

_RGB = {
    "red": (215, 30, 35),
    "green": (30, 165, 50),
    "blue": (30, 70, 225),
    "yellow": (250, 220, 30),
    "purple": (150, 40, 190),
    "white": (248, 248, 248),
}
_OUTLINE = (15, 15, 15)
_RADIUS = {"small": 0.145, "large": 0.205}  # of the shorter side
_ASPECTS = (1.0, 1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
_LONGEST_SIDE_PX, _SHORTEST_SIDE_PX = (128, 640), 96
_FINER = 4  # masks are drawn so many times larger, then shrunk: smooth edges


@dataclass(frozen=True)
class Encoding:
    """How a picture becomes a file; PNG knows no quality."""

    format: str
    quality: int

    @property
    def extension(self) -> str:
        """The file's extension, without the dot."""
        return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[self.format]


def draw(scene: Scene, size_px: tuple[int, int] | None = None) -> Image.Image:
    """The scene as an RGB picture of its own random size, or of `size_px` (width, height)."""
    rng = np.random.default_rng(scene.seed)
    own_size_px = _random_size(rng)
    image = background(scene.background, *(size_px or own_size_px), rng)
    _paint_shape(image, scene, rng)
    return image


def random_encoding(rng: np.random.Generator) -> Encoding:
    """A format and quality as the web has them: mostly JPEG."""
    formats = ("JPEG", "PNG", "WEBP")
    return Encoding(formats[rng.choice(3, p=(0.88, 0.05, 0.07))], int(rng.integers(75, 93)))


def encode(image: Image.Image, encoding: Encoding) -> bytes:
    """The picture as a file."""
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": encoding.quality},
        "PNG": {"compress_level": 1},
        "WEBP": {"quality": encoding.quality, "method": 1},
    }
    target = io.BytesIO()
    image.save(target, encoding.format, **options[encoding.format])
    return target.getvalue()


def _random_size(rng: np.random.Generator) -> tuple[int, int]:
    longest_px = int(np.exp(rng.uniform(*np.log(_LONGEST_SIDE_PX))))
    aspect = _ASPECTS[rng.integers(len(_ASPECTS))]
    shortest_px = max(_SHORTEST_SIDE_PX, int(longest_px * min(aspect, 1 / aspect)))
    return (longest_px, shortest_px) if aspect >= 1 else (shortest_px, longest_px)


def _paint_shape(image: Image.Image, scene: Scene, rng: np.random.Generator) -> None:
    """Paint the shape into a quarter of the middle square, which a centre crop leaves."""
    side_px = min(image.size)
    radius_px = side_px * _RADIUS[scene.size] * rng.uniform(0.94, 1.06)
    right, below = scene.position.endswith("right"), scene.position.startswith("bottom")
    jitter_x, jitter_y = rng.uniform(-0.015, 0.015, 2)
    x_px = image.width / 2 + side_px * ((0.2 if right else -0.2) + jitter_x)
    y_px = image.height / 2 + side_px * ((0.2 if below else -0.2) + jitter_y)
    corners_N2 = _corners(scene.shape, np.deg2rad(rng.uniform(-8, 8)))
    red, green, blue = np.clip(np.array(_RGB[scene.colour]) + rng.integers(-14, 15, 3), 0, 255).tolist()
    outline_px = max(1.0, side_px * 0.012)
    for colour, scale_px in ((_OUTLINE, radius_px + outline_px), ((red, green, blue), radius_px)):
        mask = _mask(corners_N2 * scale_px)
        image.paste(colour, (round(x_px - mask.width / 2), round(y_px - mask.height / 2)), mask)


def _mask(corners_N2: np.ndarray) -> Image.Image:
    """The filled polygon around its own middle, as a mask with smooth edges."""
    half_px = int(np.ceil(np.abs(corners_N2).max())) + 1
    fine = Image.new("L", (2 * half_px * _FINER, 2 * half_px * _FINER))
    points = ((corners_N2 + half_px) * _FINER).ravel().tolist()
    ImageDraw.Draw(fine).polygon(points, fill=255)
    return fine.reduce(_FINER)


def _corners(shape: str, turn_rad: float) -> np.ndarray:
    """The corners of a shape of about unit radius, turned, as x and y; y points down."""
    radii, angles = _POLAR[shape]
    return np.stack([radii * np.sin(angles + turn_rad), -radii * np.cos(angles + turn_rad)], axis=1)


def _regular(corners: int, radius: float, first: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return np.full(corners, radius), first + np.arange(corners) * (2 * np.pi / corners)


def _star(tip: float = 1.28, notch: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    return np.tile([tip, notch], 5), np.arange(10) * (np.pi / 5)


def _cross(arm: float = 1.12, half_width: float = 0.36) -> tuple[np.ndarray, np.ndarray]:
    tip, end = np.arctan2(half_width, arm), np.hypot(arm, half_width)
    angles = np.arange(4)[:, None] * (np.pi / 2) + np.array([-np.pi / 4, -tip, tip])
    return np.tile([half_width * np.sqrt(2), end, end], 4), angles.ravel()


# Radius and angle (clockwise from the top) of every corner; areas are alike, so that size does not tell the shape.
_POLAR = {
    "circle": _regular(48, 1.0),
    "square": _regular(4, 1.25, np.pi / 4),
    "triangle": _regular(3, 1.3),
    "star": _star(),
    "cross": _cross(),
}
