"""Batches of rows as passes of a CLIP model: pictures are decoded in threads while the model runs.

A pass may hold rows of several batches, so that its fixed shape is filled whatever their length.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np

from curation.models.loaded_clip import LoadedClip, Vectors
from curation.operator import Batch, Failure
from schemas import columns as c

Item = TypeVar("Item")


@dataclass
class Embedded:
    """A batch on its way: float32 `image_ND` and `text_ND`, complete once `open_rows` is 0."""

    rows: np.ndarray  # as they were given
    image_ND: np.ndarray
    text_ND: np.ndarray
    open_rows: int
    failures: dict[int, Failure] = field(default_factory=dict)


class _Pair(NamedTuple):
    whole: Embedded
    row: int
    seen_HWC: np.ndarray
    caption: str


class _Pass(NamedTuple):
    pairs: list[_Pair]
    pictures: Vectors
    captions: Vectors


def embedded(
    batches: Iterable[tuple[np.ndarray, Batch]],
    model: LoadedClip,
    width: int,
    batch_size: int,
    decoders: Executor,
    ahead: int,
) -> Iterator[Embedded]:
    """The batches with their vectors, in order.

    With `ahead` batches decoded beforehand, passes are filled across batches, and each is begun before the one before
    it is waited for. With 0, a batch is finished before the next is asked for.
    """
    on_the_way: deque[Embedded] = deque()

    def decoding() -> Iterator[Iterator[_Pair]]:
        for rows, batch in batches:
            image_ND, text_ND = np.zeros((2, len(batch), width), np.float32)
            on_the_way.append(Embedded(rows, image_ND, text_ND, len(batch)))
            futures = [decoders.submit(_seen, batch, row, model) for row in range(len(batch))]
            yield _pairs(on_the_way[-1], batch, futures)

    by_batch = looked_ahead(decoding(), ahead)
    streams = iter([chain.from_iterable(by_batch)]) if ahead else by_batch
    for one in looked_ahead(_passes(streams, model, batch_size), min(1, ahead)):
        for pair, image_D, text_D in zip(one.pairs, one.pictures(), one.captions(), strict=True):
            pair.whole.image_ND[pair.row], pair.whole.text_ND[pair.row] = image_D, text_D
            pair.whole.open_rows -= 1
        while on_the_way and not on_the_way[0].open_rows:
            yield on_the_way.popleft()
    yield from on_the_way


def _seen(batch: Batch, row: int, model: LoadedClip) -> "np.ndarray | Failure":
    found = batch.pixels(row)
    try:
        return found if isinstance(found, Failure) else model.seen(found)
    except Exception as error:  # one picture, of a form that nobody thought of
        return Failure("error", f"{type(error).__name__}: {error}")


def _pairs(whole: Embedded, batch: Batch, futures: list["Future[np.ndarray | Failure]"]) -> Iterator[_Pair]:
    """The rows with a picture, as soon as it is decoded; a missing caption is an empty one."""
    captions = batch[c.CAPTION.name].to_pylist()
    for row, future in enumerate(futures):
        found = future.result()
        if isinstance(found, Failure):
            whole.failures[row] = found
            whole.open_rows -= 1
        else:
            yield _Pair(whole, row, found, captions[row] or "")


def _passes(streams: Iterator[Iterator[_Pair]], model: LoadedClip, batch_size: int) -> Iterator[_Pass]:
    for stream in streams:
        while pairs := list(islice(stream, batch_size)):
            pictures = model.pictures([pair.seen_HWC for pair in pairs], batch_size)
            yield _Pass(pairs, pictures, model.captions([pair.caption for pair in pairs], batch_size))


def looked_ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The items in order; each is handed out once `count` more were taken from where they come."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
