"""Batches of curated sets: rows drawn in order, decoded, tokenised, and put together ahead of need.

Shapes: B pairs of this rank, C channels, H and W the model's side in pixels, T tokens. What comes out depends on sets,
seed, batch size and `shuffle_rows`; never on workers or cache. A step's batch is the same for any number of ranks, of
which each takes its slice.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from schemas.errors import InputError, RunError
from schemas.training import TrainingSpec
from training.agreement import Agreement, agreement
from training.captions import Tokens
from training.curated_set import Cache, CuratedSet, Row
from training.decoding import Squares, decoders
from training.order import next_set
from training.stalls import Stalls

if TYPE_CHECKING:
    from torch import Tensor

BATCHES_AHEAD = 4
_ALLOWED = 100  # rows left out for one reason, or one in ten of the rows seen, whichever is more
_TWICE = 2  # the side wanted: what is decoded smaller than that looks blurred
_BROKEN, _EMPTY = "broken", "empty"
_TOO_MANY = {
    _BROKEN: "pictures cannot be decoded; `pairmill verify` says which files of the data set are damaged",
    _EMPTY: "captions are empty once tokenised; curate with `keep: caption_words > 0`, or name other `captions`",
}


@dataclass(frozen=True)
class Batch:
    """This rank's pairs of one step: uint8 `pixels_BCHW`, int64 `tokens_BT`; tensors once they are on a device.

    `position` counts the rows of each set seen after it, `broken` and `empty` the rows that were left out on the way,
    because their picture cannot be decoded or nothing is left of their caption; all three are the same on all ranks.
    """

    pixels_BCHW: "np.ndarray | Tensor"
    tokens_BT: "np.ndarray | Tensor"
    position: tuple[int, ...]
    broken: int
    empty: int = 0
    stalls: Stalls = field(default_factory=Stalls)

    @property
    def left_out(self) -> dict[str, int]:
        """Rows left out on the way, by reason."""
        return {"broken_pictures": self.broken, "empty_captions": self.empty}

    def moved(self, move: "Callable[[np.ndarray | Tensor], Tensor]") -> "Batch":
        """The batch with pictures and tokens moved to where the model is."""
        return replace(self, pixels_BCHW=move(self.pixels_BCHW), tokens_BT=move(self.tokens_BT))


@contextlib.contextmanager
def batches(
    sets: Sequence[CuratedSet],
    spec: TrainingSpec,
    side_px: int,
    tokenize: Callable[[list[str]], Any],
    position: Sequence[int],
    *,
    rank: int = 0,
    ranks: int = 1,
    pinned: bool = False,
) -> Iterator[Iterator[Batch]]:
    """Batches without end, after the rows of `position` have been seen; closing ends the threads that make them.

    `pinned` pictures are tensors in memory that a GPU reads by itself, which is used again and again.
    Raises InputError where the ranks cannot share a batch evenly, RunError on the way.
    """
    if spec.batch_size % ranks:
        raise InputError(
            f"training {spec.name}: batch_size {spec.batch_size} cannot be shared evenly by {ranks} processes; "
            f"take a multiple of {ranks}"
        )
    united = agreement(rank, ranks)
    with contextlib.ExitStack() as stack:
        at_least_px = _TWICE * side_px if spec.decode == "scaled" else None
        squares = stack.enter_context(decoders(spec.workers, side_px, at_least_px))
        reader = stack.enter_context(ThreadPoolExecutor(1, "read"))
        preparer = stack.enter_context(ThreadPoolExecutor(1, "prepare"))
        maker = stack.enter_context(ThreadPoolExecutor(1, "batches"))
        cache = Cache(int(spec.cache_gb * 1e9), 3 * side_px * side_px, squares)
        rows = _drawn(sets, spec, position, cache, reader)
        made = _Maker(rows, spec.batch_size, rank, ranks, united, Tokens(tokenize), squares, preparer, pinned)
        try:
            yield ahead(made.batches(), maker, BATCHES_AHEAD)
        finally:
            if united is not None:
                united.close()
            maker.shutdown(cancel_futures=True)  # before the others, which it needs
            preparer.shutdown(cancel_futures=True)
            reader.shutdown(cancel_futures=True)


class Drawn(NamedTuple):
    """A row as it is drawn: its caption in that epoch, and the rows of each set seen with it."""

    row: Row
    caption: str
    position: tuple[int, ...]


class _Pair(NamedTuple):
    """A row made ready: uint8 `pixels_HWC` and `tokens_T`; None for what cannot be decoded, or is empty."""

    pixels_HWC: np.ndarray | None
    tokens_T: np.ndarray | None

    @property
    def fault(self) -> str:
        return _BROKEN if self.pixels_HWC is None else _EMPTY if self.tokens_T is None else ""


_Ready = dict[tuple[int, ...], _Pair]


@dataclass
class _Maker:
    """Draws rows until a batch is full; rows at fault are left out and counted.

    While a batch is put together, those rows are prepared that the next one will most likely have.
    """

    rows: Iterator[Drawn]
    batch_size: int
    rank: int
    ranks: int
    united: Agreement | None
    tokens: Tokens
    squares: Squares
    preparer: Executor
    pinned: bool
    seen: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    coming: deque[Drawn] = field(default_factory=deque)
    prepared: "Future[tuple[_Ready, Stalls]] | None" = None

    def batches(self) -> Iterator[Batch]:
        while True:
            yield self._next()

    def _next(self) -> Batch:
        """The next batch of all ranks, and of it this rank's slice."""
        ready: _Ready = {}
        fit: list[Drawn] = []
        before, stalls = self.left_out.copy(), Stalls()
        if self.prepared is not None:
            ready, spent = self.prepared.result()
            stalls = stalls + spent
        while len(fit) < self.batch_size:
            drawn = self._draw(self.batch_size - len(fit), stalls)
            faults = self._faults(drawn, ready, stalls)
            fit += [one for place, one in enumerate(drawn) if place not in faults]
            self.seen += len(drawn)
            self.left_out.update(faults.values())
            self._require_mostly_fit()
        mine = fit[self._share(self.batch_size)]
        self._prepare(mine, ready, stalls)
        self._look_ahead(stalls)
        pairs = [ready[one.position] for one in mine]
        pixels_BCHW = _stacked([pair.pixels_HWC for pair in pairs], self.pinned)  # type: ignore[misc]
        tokens_BT = np.stack([pair.tokens_T for pair in pairs])  # type: ignore[misc]
        broken, empty = (self.left_out[fault] - before[fault] for fault in (_BROKEN, _EMPTY))
        return Batch(pixels_BCHW, tokens_BT, drawn[-1].position, broken, empty, stalls)

    def _draw(self, count: int, stalls: Stalls) -> list[Drawn]:
        """The next rows, those that were drawn ahead first."""
        with stalls.timed("read_s"):
            self.coming.extend(islice(self.rows, max(0, count - len(self.coming))))
        return [self.coming.popleft() for _ in range(count)]

    def _look_ahead(self, stalls: Stalls) -> None:
        """Begin to prepare the rows of the next batch that this rank will look at."""
        with stalls.timed("read_s"):
            self.coming.extend(islice(self.rows, self.batch_size - len(self.coming)))
        drawn = list(self.coming)[self._looked_at(self.batch_size)]

        def prepare() -> tuple[_Ready, Stalls]:
            ready, spent = _Ready(), Stalls()
            self._prepare(drawn, ready, spent)
            return ready, spent

        self.prepared = self.preparer.submit(prepare)

    def _share(self, count: int) -> slice:
        return slice(self.rank * count // self.ranks, (self.rank + 1) * count // self.ranks)

    def _looked_at(self, count: int) -> slice:
        """Each rank looks for faults at its share of the rows, or at all where none can be asked."""
        return self._share(count) if self.united else slice(None)

    def _faults(self, drawn: Sequence[Drawn], ready: _Ready, stalls: Stalls) -> dict[int, str]:
        """Which of the rows are at fault, by place."""
        places = range(len(drawn))[self._looked_at(len(drawn))]
        self._prepare([drawn[place] for place in places], ready, stalls)
        found = {place: fault for place in places if (fault := ready[drawn[place].position].fault)}
        if self.united is None:
            return found
        with stalls.timed("agree_s"):
            return self.united.united(found)

    def _prepare(self, drawn: Sequence[Drawn], ready: _Ready, stalls: Stalls) -> None:
        """Decode and tokenise rows that are not ready; decoded pictures of the cache are taken as they are."""
        drawn = [one for one in drawn if one.position not in ready]
        with stalls.timed("decode_s"):
            stored = {i: one.row.picture for i, one in enumerate(drawn) if isinstance(one.row.picture, bytes)}
            decoded = dict(zip(stored, self.squares(list(stored.values())), strict=True))
        with stalls.timed("tokenise_s"):
            tokens = self.tokens.unless_empty([one.caption for one in drawn])
        for i, (one, tokens_T) in enumerate(zip(drawn, tokens, strict=True)):
            kept = one.row.picture if isinstance(one.row.picture, np.ndarray) else None
            ready[one.position] = _Pair(decoded.get(i, kept), tokens_T)

    def _require_mostly_fit(self) -> None:
        for fault, count in self.left_out.items():
            if count > max(_ALLOWED, self.seen // 10):
                raise RunError(f"{count:,} of {self.seen:,} {_TOO_MANY[fault]}")


def _stacked(pixels: Sequence[np.ndarray], pinned: bool) -> "np.ndarray | Tensor":
    """A view with channels last in memory, as convolutions on a CPU like it: a quarter of their time."""
    if not pinned:
        return np.stack(pixels).transpose(0, 3, 1, 2)
    import torch

    pixels_BHWC = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(pixels, out=pixels_BHWC.numpy())
    return pixels_BHWC.permute(0, 3, 1, 2)


def _drawn(
    sets: Sequence[CuratedSet], spec: TrainingSpec, position: Sequence[int], cache: Cache, reader: Executor
) -> Iterator[Drawn]:
    """Rows without end; after each, the rows seen are in proportion to the sets' weights."""
    seen, weights = list(position), [one.weight for one in sets]
    streams = [
        one.from_row(seen[number], spec.shuffle_rows, (spec.seed, number), cache, reader)
        for number, one in enumerate(sets)
    ]
    while True:
        number = next_set(seen, weights)
        seen[number] += 1
        row, caption = next(streams[number])
        yield Drawn(row, caption, tuple(seen))


class _Timed(Protocol):
    @property
    def stalls(self) -> Stalls: ...


Made = TypeVar("Made", bound=_Timed)


def ahead(items: Iterator[Made], maker: Executor, count: int) -> Iterator[Made]:
    """The batches in order, `count` of them made ahead in one thread; what making them raises is raised here."""
    flights = deque(maker.submit(next, items) for _ in range(count))
    while True:
        flight = flights.popleft()
        waited = Stalls()
        with waited.timed("wait_s"):
            batch = flight.result()
        batch.stalls.wait_s = waited.wait_s
        flights.append(maker.submit(next, items))
        yield batch
