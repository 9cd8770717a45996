"""Batches of conversations: drawn in order, encoded in threads, packed or padded by windows, made ahead of need.

What comes out depends on the data, the seed and the stage; never on threads. The rows of a step are the same for any
number of ranks, of which each takes its share: nearly equal in tokens.

A window is the longest run of samples that fills a number of batches; it begins where the one before it ended, so a
position is how many conversations of each source were seen before the window, and how many of its batches are done.
Whoever goes on from there makes the window again and leaves out what is done.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from schemas.errors import InputError
from schemas.generative import Stage
from training.agreement import agreement
from training.batches import ahead
from training.generative.collation import Collated, packed, padded
from training.generative.encoding import Encoder
from training.generative.measuring import Measuring, Member
from training.generative.mixture import Source, drawn
from training.generative.packing import dealt, fullest
from training.stalls import Stalls

_PACKS, _SAMPLES = 16, 64  # of a window, at least: fewer packs are not filled as well, fewer samples differ in length


@dataclass(frozen=True)
class GenerativeBatch:
    """This rank's share of one step, in `parts` to be computed one after the other.

    The others are those of the whole step, the same on all ranks: `label_tokens`, by which the summed loss is divided;
    `tokens` without padding; `samples`; `left_out`, samples by reason that were passed over on the way, among them
    `shortened`, which are there with fewer turns. `position` is where the next one begins. `sent` are the inputs of the
    parts where the model is, once they are there.
    """

    parts: tuple[Collated, ...]
    position: tuple[int, ...]
    label_tokens: int
    tokens: int
    samples: int
    left_out: Counter[str] = field(default_factory=Counter)
    stalls: Stalls = field(default_factory=Stalls)
    sent: tuple[dict[str, Tensor], ...] | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> "GenerativeBatch":
        """The batch with its inputs moved too; what is counted is counted where they were."""
        return replace(self, sent=tuple({name: move(v) for name, v in part.inputs.items()} for part in self.parts))


@contextlib.contextmanager
def batches(
    sources: Sequence[Source],
    stage: Stage,
    encoder: Encoder,
    position: Sequence[int] = (),
    *,
    seed: int = 0,
    workers: int = 2,
    refused: Collection[str] = (),
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[Iterator[GenerativeBatch]]:
    """Batches without end from a position of one of them, or the beginning; closing ends the threads that make them.

    `refused` are faults (`Encoder.encode` lists them) that stop the training instead of being counted. Raises
    InputError where a step cannot be shared evenly or the family does not pack; RunError on the way.
    """
    _refuse_unfit(stage, encoder, ranks)
    united = agreement(rank, ranks)
    with contextlib.ExitStack() as stack:
        encoders = stack.enter_context(ThreadPoolExecutor(workers, "encode"))
        reader = stack.enter_context(ThreadPoolExecutor(1, "read"))
        maker = stack.enter_context(ThreadPoolExecutor(1, "batches"))
        *before, done = position or (*[0] * len(sources), 0)
        conversations = drawn(sources, seed, before, reader)
        measuring = Measuring(conversations, encoder, encoders, frozenset(refused), rank, ranks, united)
        made = _Maker(measuring, stage, seed)
        try:
            yield ahead(made.batches(done), maker, made.batches_in_window)
        finally:
            if united is not None:
                united.close()
            maker.shutdown(cancel_futures=True)  # before the others, which it needs
            reader.shutdown(cancel_futures=True)


def _refuse_unfit(stage: Stage, encoder: Encoder, ranks: int) -> None:
    if stage.batch_size % (ranks * stage.accumulate):
        raise InputError(
            f"batch_size {stage.batch_size} cannot be shared evenly by {ranks} processes in {stage.accumulate} parts "
            f"each (accumulate); take a multiple of {ranks * stage.accumulate}"
        )
    if stage.pack and not encoder.layout.packs:
        raise InputError("pack: this family cannot keep samples in one row apart; leave `pack` out")


@dataclass
class _Maker:
    """Fills windows with what was measured, and makes their batches; conversations at fault are left out."""

    measuring: Measuring
    stage: Stage
    seed: int
    waiting: deque[Member] = field(default_factory=deque)

    @property
    def batches_in_window(self) -> int:
        """So many that a window is large enough to be packed well."""
        return max(1, -(-(_PACKS if self.stage.pack else _SAMPLES) // self.stage.batch_size))

    def batches(self, done: int) -> Iterator[GenerativeBatch]:
        """Without end; the first window lacks those that are done."""
        while True:
            yield from self._window(done)
            done = 0

    def _window(self, done: int) -> Iterator[GenerativeBatch]:
        stalls = Stalls()
        members, rows = self._filled(stalls)
        fit = [one for one in members if not one.fault]
        left_out = Counter(one.fault for one in members if one.fault)
        left_out.update(shortened=sum(one.shortened for one in fit))
        size, start = self.stage.batch_size, members[0].drawn.before
        steps = self._order(fit, rows, start)
        for number in range(done, len(steps) // size):
            step = [[fit[place] for place in row] for row in steps[number * size : (number + 1) * size]]
            ends = (number + 1) * size == len(steps)
            position = (*self.waiting[0].drawn.before, 0) if ends else (*start, number + 1)
            yield self._batch(step, position, left_out if number == 0 else Counter(), stalls)
            stalls = Stalls()

    def _batch(
        self, step: list[list[Member]], position: tuple[int, ...], left_out: Counter[str], stalls: Stalls
    ) -> GenerativeBatch:
        """This rank's share of the rows of a step."""
        shares = dealt([sum(one.tokens for one in row) for row in step], self.measuring.ranks, self.stage.accumulate)
        everybody = [one for row in step for one in row]
        mine = [[step[row] for row in part] for part in shares[self.measuring.rank]]
        with stalls.timed("decode_s"):
            self.measuring.encode_again([one for part in mine for row in part for one in row if one.encoded is None])
            parts = tuple(self._collated(part) for part in mine)
        for one in everybody:
            one.encoded = None
        labels, tokens = sum(one.label_tokens for one in everybody), sum(one.tokens for one in everybody)
        return GenerativeBatch(parts, position, labels, tokens, len(everybody), left_out, stalls)

    def _collated(self, part: list[list[Member]]) -> Collated:
        rows = [[one.encoded for one in row if one.encoded is not None] for row in part]
        if self.stage.pack:
            return packed(rows, self.measuring.encoder.budget.tokens, self.measuring.encoder.layout)
        return padded([sample for [sample] in rows], self.measuring.encoder.layout)

    def _order(self, fit: list[Member], rows: list[list[int]], start: Sequence[int]) -> list[list[int]]:
        """The rows as the steps take them: packs shuffled; samples by batches of similar length, which are shuffled."""
        draw = np.random.default_rng([self.seed, *start])
        if self.stage.pack:
            return [rows[place] for place in draw.permutation(len(rows)).tolist()]
        size = self.stage.batch_size
        by_length = sorted(rows, key=lambda row: fit[row[0]].tokens)
        shuffled = draw.permutation(len(rows) // size).tolist()
        return [row for batch in shuffled for row in by_length[batch * size : (batch + 1) * size]]

    def _filled(self, stalls: Stalls) -> tuple[list[Member], list[list[int]]]:
        """The members of the next window, at fault or not, and which of those that are fit share a row."""
        while True:
            fit = [one for one in self.waiting if not one.fault]
            rows = self._rows(fit)
            if rows is None:
                self.waiting.extend(self.measuring.draw(stalls))
                continue
            first_out = fit[sum(map(len, rows))]
            members = []
            while self.waiting[0] is not first_out:
                members.append(self.waiting.popleft())
            return members, rows

    def _rows(self, fit: list[Member]) -> list[list[int]] | None:
        """Rows of the window; None until more was drawn than it holds."""
        count = self.batches_in_window * self.stage.batch_size
        if self.stage.pack:
            sizes = [one.tokens for one in fit], [one.tiles for one in fit]
            return fullest(*sizes, self.measuring.encoder.budget, count)
        return [[place] for place in range(count)] if len(fit) > count else None
