"""Captions of scenes: rich enough to learn from, in English and some other languages, and captions without content."""

from itertools import product

import numpy as np

from flows.demo_web.languages import LANGUAGES
from flows.demo_web.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Scene

ENGLISH = (
    "a {size} {colour} {shape} at the {position} of a {background} background",
    "a {background} background with a {size} {colour} {shape} at the {position}",
    "this picture shows a {colour} {shape}, {size}, in the {position} corner, {background} background",
    "there is a {size} {colour} {shape} on a {background} background, {position}",
    "at the {position} of this {background} picture you can see a {size} {colour} {shape}",
)
_WITHOUT_CONTENT = ("IMG_{number}.JPG", "image", "", "click here", "photo {number}", "DSC{number}", "untitled-{number}")
_EVERY = {"colour": 13, "shape": 13, "class": 5}  # of 800, 960 and 160 fillings; odd, so that all factors vary


def english(scene: Scene, rng: np.random.Generator) -> str:
    """A caption in English by one of several templates; all of them name all five factors."""
    return ENGLISH[rng.integers(len(ENGLISH))].format(**vars(scene))


def foreign(scene: Scene, rng: np.random.Generator) -> str:
    """A caption in German, French, Spanish or Dutch, long enough for a detector of languages."""
    return LANGUAGES[sorted(LANGUAGES)[rng.integers(len(LANGUAGES))]](scene)


def without_content(rng: np.random.Generator) -> str:
    """A caption that says nothing of its picture: at most two words, or none."""
    template = _WITHOUT_CONTENT[rng.integers(len(_WITHOUT_CONTENT))]
    return template.format(number=rng.integers(1000, 10000))


def templates(label: str) -> list[str]:
    """Prompt templates for zero-shot classes named by `label` (colour, shape or class): `{}` stands for the class.

    The other factors are averaged over: of all captions that scenes can have, a part is taken.
    """
    asked = {"colour": "{colour}", "shape": "{shape}", "class": "{colour} {shape}"}[label]
    with_gap = [caption.replace(asked, "{{}}") for caption in ENGLISH]
    factors = product(SHAPES, COLOURS, SIZES, POSITIONS, BACKGROUNDS)
    names = ("shape", "colour", "size", "position", "background")
    values = [dict(zip(names, combination, strict=True)) for combination in factors]
    filled = dict.fromkeys(caption.format(**value) for caption in with_gap for value in values)
    return list(filled)[:: _EVERY[label]]
