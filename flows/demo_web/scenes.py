"""What a generated picture shows: five factors, all of which its caption may name."""

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS = ("striped", "checked", "dotted", "cloudy")

# Streams of random numbers that never meet: what is held out is never drawn into the web.
WEB, HELD_OUT, TRUSTED = 0, 1, 2


@dataclass(frozen=True)
class Scene:
    """One picture in words; `seed` decides all that words leave open (texture, hues, jitter)."""

    shape: str
    colour: str
    size: str
    position: str
    background: str
    seed: tuple[int, ...]


def random_scene(*seed: int) -> Scene:
    """The scene of these numbers; every factor is equally likely, independent of the others."""
    rng = np.random.default_rng(seed)

    def one_of(factor: tuple[str, ...]) -> str:
        return factor[rng.integers(len(factor))]

    return Scene(
        one_of(SHAPES), one_of(COLOURS), one_of(SIZES), one_of(POSITIONS), one_of(BACKGROUNDS), seed=(*seed, 1)
    )


def scene_unlike(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene with another shape and another colour; the rest is drawn anew."""
    while True:
        other = random_scene(*rng.integers(2**31, size=2).tolist())
        if other.shape != scene.shape and other.colour != scene.colour:
            return other
