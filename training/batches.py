"""Batches of curated sets: rows drawn in order, decoded in threads, tokenised, and put together ahead of need.

Shapes: B pairs, C channels, H and W the model's side in pixels, T tokens. What comes out depends on sets, seed, batch
size and `shuffle_rows`; never on workers or cache.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np

from schemas.errors import RunError
from schemas.picture_transform import square
from schemas.pixels import DecodeError, decode
from schemas.training import TrainingSpec
from training.curated_set import Cache, CuratedSet, Row
from training.order import next_set

Item = TypeVar("Item")
BATCHES_AHEAD = 4
_MOST_TOKENISED = 65_536  # captions whose tokens are remembered
_BROKEN_ALLOWED = 100  # broken pictures, or one in ten of the rows seen, whichever is more


@dataclass(frozen=True)
class Batch:
    """Pairs of one step: uint8 `pixels_BCHW`, int64 `tokens_BT`, and the rows of each set seen after it."""

    pixels_BCHW: np.ndarray
    tokens_BT: np.ndarray
    position: tuple[int, ...]
    broken: int  # rows of this batch's draw that were left out, because their picture cannot be decoded


@contextlib.contextmanager
def batches(
    sets: Sequence[CuratedSet],
    spec: TrainingSpec,
    side_px: int,
    tokenize: Callable[[list[str]], Any],
    position: Sequence[int],
) -> Iterator[Iterator[Batch]]:
    """Batches without end, after the rows of `position` have been seen; closing ends the threads that make them."""
    with ThreadPoolExecutor(spec.workers, "decode") as decoders, ThreadPoolExecutor(1, "batches") as maker:

        def decode_all(stored: Sequence[bytes | None]) -> list[np.ndarray | None]:
            return list(decoders.map(lambda one: _square(one, side_px), stored))

        cache = Cache(int(spec.cache_gb * 1e9), 3 * side_px * side_px, decode_all)
        made = _Maker(_drawn(sets, spec, position, cache), spec.batch_size, Tokens(tokenize), decode_all)
        try:
            yield _ahead(made.batches(), maker)
        finally:
            maker.shutdown(cancel_futures=True)  # before the decoders, which it needs


@dataclass
class Tokens:
    """Tokens of captions; a caption seen before is not tokenised again, which takes longer than its forward pass."""

    tokenize: Callable[[list[str]], Any]
    _known: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, captions: Sequence[str]) -> np.ndarray:
        """int64 `tokens_BT` of captions."""
        new = list(dict.fromkeys(caption for caption in captions if caption not in self._known))
        if len(self._known) + len(new) > _MOST_TOKENISED:
            self._known, new = {}, list(dict.fromkeys(captions))
        if new:
            self._known |= zip(new, np.asarray(self.tokenize(new), np.int64), strict=True)
        return np.stack([self._known[caption] for caption in captions])


@dataclass
class _Maker:
    """Draws rows until a batch is full; broken pictures are left out and counted."""

    rows: "Iterator[Drawn]"
    batch_size: int
    tokens: Tokens
    decode_all: Callable[[Sequence[bytes | None]], list[np.ndarray | None]]
    seen: int = 0
    broken: int = 0

    def batches(self) -> Iterator[Batch]:
        while True:
            yield self._next()

    def _next(self) -> Batch:
        squares: list[np.ndarray] = []
        captions: list[str] = []
        before = self.broken
        while len(squares) < self.batch_size:
            drawn = list(islice(self.rows, self.batch_size - len(squares)))
            pictures = self._pictures([one.row for one in drawn])
            squares += [picture for picture in pictures if picture is not None]
            captions += [one.caption for one, picture in zip(drawn, pictures, strict=True) if picture is not None]
            self.seen += len(drawn)
            self.broken += sum(picture is None for picture in pictures)
            self._require_mostly_whole()
        # A view with channels last in memory, as convolutions on a CPU like it: a quarter of their time.
        pixels_BCHW = np.stack(squares).transpose(0, 3, 1, 2)
        return Batch(pixels_BCHW, self.tokens.of(captions), drawn[-1].position, self.broken - before)

    def _pictures(self, rows: Sequence[Row]) -> list[np.ndarray | None]:
        """Squares of rows, uint8 HWC; those of rows that lie decoded in the cache are taken as they are."""
        stored = {i: row.picture for i, row in enumerate(rows) if isinstance(row.picture, bytes)}
        decoded = dict(zip(stored, self.decode_all(list(stored.values())), strict=True))
        ready = [row.picture if isinstance(row.picture, np.ndarray) else None for row in rows]
        return [decoded.get(i, picture) for i, picture in enumerate(ready)]

    def _require_mostly_whole(self) -> None:
        if self.broken > max(_BROKEN_ALLOWED, self.seen // 10):
            raise RunError(
                f"{self.broken:,} of {self.seen:,} pictures cannot be decoded; `pairmill verify` says which files of "
                "the data set are damaged"
            )


class Drawn(NamedTuple):
    """A row as it is drawn: its caption in that epoch, and the rows of each set seen with it."""

    row: Row
    caption: str
    position: tuple[int, ...]


def _drawn(sets: Sequence[CuratedSet], spec: TrainingSpec, position: Sequence[int], cache: Cache) -> Iterator[Drawn]:
    """Rows without end; after each, the rows seen are in proportion to the sets' weights."""
    seen, weights = list(position), [one.weight for one in sets]
    streams = [
        one.from_row(seen[number], spec.shuffle_rows, (spec.seed, number), cache) for number, one in enumerate(sets)
    ]
    while True:
        number = next_set(seen, weights)
        seen[number] += 1
        row, caption = next(streams[number])
        yield Drawn(row, caption, tuple(seen))


def _square(stored: bytes | None, side_px: int) -> np.ndarray | None:
    """uint8 `pixels_HWC` of a stored picture, or None where there is none or it is broken."""
    if stored is None:
        return None
    try:
        return square(decode(stored), side_px)
    except DecodeError:
        return None


def _ahead(items: Iterator[Item], maker: Executor) -> Iterator[Item]:
    """The items in order, some of them made ahead in one thread; what making them raises is raised here."""
    flights = deque(maker.submit(next, items) for _ in range(BATCHES_AHEAD))
    while True:
        item = flights.popleft().result()
        flights.append(maker.submit(next, items))
        yield item
