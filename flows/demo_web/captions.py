"""Captions of scenes: rich enough to learn from, in English and some other languages, and captions without content."""

from itertools import product

import numpy as np

from flows.demo_web.languages import LANGUAGES
from flows.demo_web.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Scene

# Every caption names shape and colour; many name little else. Where captions always name everything, size, place and
# background tell nearly all pairs of a batch apart, and a model has little reason to learn shapes.
ENGLISH = (
    "a {size} {colour} {shape} at the {position} of a {background} background",
    "at the {position} of this {background} picture there is a {size} {colour} {shape}",
    "a {background} background with a {colour} {shape} on it",
    "this picture shows a {colour} {shape} in the {position} corner",
    "there is a {size} {colour} {shape} in this picture",
    "you can see a {colour} {shape} here",
    "this is a picture of a {colour} {shape}",
)
_WITHOUT_CONTENT = ("IMG_{number}.JPG", "image", "", "click here", "photo {number}", "DSC{number}", "untitled-{number}")
_FILLINGS = 8  # of each template, for zero-shot prompts
_STRIDE = 37  # through the fillings; a prime, so that all factors vary


def english(scene: Scene, rng: np.random.Generator) -> str:
    """A caption in English by one of several templates; all of them name shape and colour."""
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

    The other factors are averaged over, as far as the captions' templates name them.
    """
    asked = {"colour": "{colour}", "shape": "{shape}", "class": "{colour} {shape}"}[label]
    factors = list(product(SHAPES, COLOURS, SIZES, POSITIONS, BACKGROUNDS))
    prompts = []
    for caption in ENGLISH:
        with_gap = caption.replace(asked, "{{}}")
        filled = list(dict.fromkeys(with_gap.format(**vars(Scene(*values, seed=()))) for values in factors))
        prompts += [filled[i * _STRIDE % len(filled)] for i in range(min(_FILLINGS, len(filled)))]
    return prompts
