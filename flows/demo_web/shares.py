"""What is planted: every kind of pair, its share of the web, and the step of a pipeline that should deal with it."""

from dataclasses import dataclass
from typing import Literal

Cure = Literal["none", "source", "download", "caption", "size", "language", "dedup", "score"]


@dataclass(frozen=True)
class Kind:
    """A kind of pair; `cure` is what should take it out: a failed download, or a step that looks at that property."""

    share: float
    cure: Cure
    meaning: str


# What is left of 1 is `good`.
KINDS: dict[str, Kind] = {
    "slow": Kind(0.01, "none", "a good pair whose server answers late, but in time"),
    "server_error_once": Kind(0.01, "none", "a good pair whose server answers 503 the first time"),
    "duplicate_row": Kind(0.01, "source", "a good pair that stands in the table a second time"),
    "dead_link": Kind(0.05, "download", "404 or 410"),
    "server_error": Kind(0.005, "download", "500, always"),
    "never_answers": Kind(
        0.002, "download", "the server takes the request and is silent, or sends a byte now and then"
    ),
    "connection_reset": Kind(0.003, "download", "the server closes the connection"),
    "broken_file": Kind(0.03, "download", "a cut picture, a page of HTML with status 200, or random bytes"),
    "no_content": Kind(0.05, "caption", "a caption that says nothing: a file name, one or two words, none"),
    "tiny_image": Kind(0.03, "size", "a picture whose shorter side is below 64 pixels"),
    "foreign_language": Kind(0.05, "language", "a right caption in German, French, Spanish or Dutch"),
    "exact_duplicate": Kind(0.04, "dedup", "the bytes of a good pair at another URL, with a caption of their own"),
    "near_duplicate": Kind(0.06, "dedup", "the picture of a good pair, smaller and encoded anew"),
    "second_caption": Kind(0.02, "dedup", "the URL of a good pair with another right caption"),
    "wrong_caption": Kind(0.18, "score", "a caption of another picture: at least shape and colour are wrong"),
}
GOOD = "good"
TINY_PX = 64  # the shorter side of a tiny image is below it

# Kinds that a curated set may hold: nothing is wrong with the pair itself. Of pairs with one picture, one should stay.
RIGHT = frozenset({GOOD, *(name for name, kind in KINDS.items() if kind.cure in ("none", "source", "dedup"))})


def counts(pairs: int) -> dict[str, int]:
    """How many rows of each kind a web of so many rows has, `good` among them."""
    planted = {name: round(kind.share * pairs) for name, kind in KINDS.items()}
    return {GOOD: pairs - sum(planted.values()), **planted}
