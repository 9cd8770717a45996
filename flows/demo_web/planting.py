"""Which pair of the web is of which kind: the plan of a web, from a seed, before anything is drawn."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from flows.demo_web.captions import english, foreign, without_content
from flows.demo_web.pictures import Encoding, draw, encode, random_encoding
from flows.demo_web.scenes import WEB, Scene, random_scene, scene_unlike
from flows.demo_web.server import Behaviour
from flows.demo_web.shares import GOOD, TINY_PX, counts

_SITES = 24
_COPIES = ("exact_duplicate", "near_duplicate")
_SAME_URL = ("second_caption", "duplicate_row")
_BEHAVIOURS = {
    "slow": (Behaviour(delay_s=0.8),),
    "server_error_once": (Behaviour(503, bad_answers=1),),
    "dead_link": (Behaviour(404), Behaviour(410)),
    "server_error": (Behaviour(500),),
    "never_answers": (Behaviour(manner="silent"), Behaviour(manner="drip")),
    "connection_reset": (Behaviour(manner="reset"),),
}


@dataclass(frozen=True)
class Planted:
    """One row of the table: what it says, what it shows, and how its file comes about."""

    kind: str
    path: str
    caption: str | None
    scene: Scene
    picture: int  # rows that show one picture share the number
    encoding: Encoding
    seed: tuple[int, ...]  # of what is random in the file: tiny sizes, how it is broken, how it is encoded anew
    behaviour: Behaviour | None = None
    original: str | None = None  # path of the good pair that a copy was made from
    original_encoding: Encoding | None = None

    @property
    def owns_file(self) -> bool:
        """Whether its path is its own and has a file."""
        return self.kind not in (*_SAME_URL, "dead_link")

    def content(self) -> bytes:
        """The bytes of its file."""
        rng = np.random.default_rng(self.seed)
        if self.kind == "tiny_image":
            short_px = int(rng.integers(16, TINY_PX))
            return encode(draw(self.scene, (int(short_px * rng.uniform(1, 1.6)), short_px)), self.encoding)
        first = encode(draw(self.scene), self.original_encoding or self.encoding)
        if self.kind == "near_duplicate":
            return _encoded_anew(first, self.encoding, rng)
        return _broken(first, rng) if self.kind == "broken_file" else first


def plan_web(pairs: int, seed: int) -> list[Planted]:
    """The rows of a web in the order of its table."""
    rng = np.random.default_rng((seed, WEB))
    planned = counts(pairs)
    copies = {kind: planned.pop(kind) for kind in (*_COPIES, *_SAME_URL)}
    kinds = [kind for kind, rows in planned.items() for _ in range(rows)]
    numbers = rng.permutation(pairs).tolist()  # paths tell nothing of kinds
    own = [_own_picture(kind, (seed, WEB, i), numbers.pop(), rng) for i, kind in enumerate(kinds)]
    rows = [*own, *_copies_of([row for row in own if row.kind == GOOD], copies, numbers, rng)]
    return [rows[i] for i in rng.permutation(len(rows))]


def _own_picture(kind: str, seed: tuple[int, ...], number: int, rng: np.random.Generator) -> Planted:
    """A row with a picture that no other row was made from."""
    scene, encoding = random_scene(*seed), random_encoding(rng)
    behaviours = _BEHAVIOURS.get(kind)
    return Planted(
        kind,
        _path(number, encoding),
        _caption(kind, scene, rng),
        scene,
        picture=seed[-1],
        encoding=encoding,
        seed=(*seed, 2),
        behaviour=behaviours[rng.integers(len(behaviours))] if behaviours else None,
    )


def _copies_of(
    good: list[Planted], copies: dict[str, int], numbers: list[int], rng: np.random.Generator
) -> Iterator[Planted]:
    """Rows made from good ones; some of those have several. Raises nothing: a web without good pairs has no copies."""
    for kind, rows in copies.items():
        for original in rng.choice(len(good), min(rows, len(good)), replace=False).tolist():
            yield _copy(kind, good[original], numbers.pop(), rng)


def _copy(kind: str, original: Planted, number: int, rng: np.random.Generator) -> Planted:
    caption, encoding = english(original.scene, rng), original.encoding
    if kind == "near_duplicate":
        encoding = Encoding(("JPEG", "JPEG", "WEBP")[rng.integers(3)], int(rng.integers(45, 80)))
    while kind == "second_caption" and caption == original.caption:
        caption = english(original.scene, rng)
    return replace(
        original,
        kind=kind,
        path=original.path if kind in _SAME_URL else _path(number, encoding),
        caption=original.caption if kind == "duplicate_row" else caption,
        encoding=encoding,
        original=original.path,
        original_encoding=original.encoding,
    )


def _caption(kind: str, scene: Scene, rng: np.random.Generator) -> str | None:
    if kind == "no_content":
        return without_content(rng) if rng.random() < 0.95 else None
    if kind == "foreign_language":
        return foreign(scene, rng)
    return english(scene_unlike(scene, rng) if kind == "wrong_caption" else scene, rng)


def _path(number: int, encoding: Encoding) -> str:
    return f"/site-{number % _SITES:02d}/{number:06d}.{encoding.extension}"


def _encoded_anew(picture: bytes, encoding: Encoding, rng: np.random.Generator) -> bytes:
    """The picture at 55 to 90 % of its size, though never tiny, in other bytes."""
    with Image.open(io.BytesIO(picture)) as image:
        scale = max(rng.uniform(0.55, 0.9), (TINY_PX + 8) / min(image.size))
        size_px = (round(image.width * scale), round(image.height * scale))
        return encode(image.convert("RGB").resize(size_px, Image.Resampling.LANCZOS), encoding)


def _broken(picture: bytes, rng: np.random.Generator) -> bytes:
    """What a server may send in place of a picture, with status 200."""
    page = b"<!doctype html><html><body><h1>This picture has moved</h1></body></html>\n"
    return (picture[: len(picture) // 2], page, rng.bytes(2000))[rng.integers(3)]
