"""Batches of conversations: drawn in order, encoded in threads, packed or padded by windows, made ahead of need.

What comes out depends on the data, the seed and the stage; never on threads. The rows of a step are the same for any
number of ranks, of which each takes its share: nearly equal in tokens.

A window is the longest run of samples that fills a number of batches; it begins where the one before it ended, so a
position is how many conversations of each source were seen before the window, and how many of its batches are done.
Whoever goes on from there makes the window again and leaves out what is done.
"""

import contextlib
import json
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from schemas.errors import InputError, RunError
from schemas.generative import Stage
from training.agreement import Agreement, agreement
from training.batches import ahead
from training.generative.collation import Collated, Encoded, packed, padded
from training.generative.conversations import Unfit
from training.generative.encoding import Encoder
from training.generative.mixture import Drawn, Source, drawn
from training.generative.packing import dealt, fullest
from training.stalls import Stalls

_PACKS, _SAMPLES = 16, 64  # of a window, at least: fewer packs are not filled as well, fewer samples differ in length
_AT_ONCE = 32  # conversations that are drawn and measured together
_ALLOWED = 100  # samples left out for one reason, or one in ten of those seen, whichever is more


@dataclass(frozen=True)
class GenerativeBatch:
    """This rank's share of one step, in `parts` to be computed one after the other.

    The others are those of the whole step, the same on all ranks: `label_tokens`, by which the summed loss is divided;
    `tokens` without padding; `samples`; `left_out`, samples by reason that were passed over on the way, among them
    `shortened`, which are there with fewer turns. `position` is where the next one begins.
    """

    parts: tuple[Collated, ...]
    position: tuple[int, ...]
    label_tokens: int
    tokens: int
    samples: int
    left_out: Counter[str] = field(default_factory=Counter)
    stalls: Stalls = field(default_factory=Stalls)


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
        made = _Maker(
            drawn(sources, seed, before, reader),
            stage,
            encoder,
            encoders,
            frozenset(refused),
            seed,
            rank,
            ranks,
            united,
        )
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
class _Member:
    """A conversation that was drawn, and what is known of it: its measures, or its fault."""

    drawn: Drawn
    tokens: int = 0
    tiles: int = 0
    label_tokens: int = 0
    shortened: bool = False
    fault: str = ""
    sentence: str = ""
    encoded: Encoded | None = None  # where this rank measured it


@dataclass
class _Maker:
    """Draws and measures until a window is full, then packs it; conversations at fault are left out and counted."""

    conversations: Iterator[Drawn]
    stage: Stage
    encoder: Encoder
    encoders: Executor
    refused: frozenset[str]
    seed: int
    rank: int
    ranks: int
    united: Agreement | None
    waiting: deque[_Member] = field(default_factory=deque)
    seen: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

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
        self, step: list[list[_Member]], position: tuple[int, ...], left_out: Counter[str], stalls: Stalls
    ) -> GenerativeBatch:
        """This rank's share of the rows of a step."""
        shares = dealt([sum(one.tokens for one in row) for row in step], self.ranks, self.stage.accumulate)
        everybody = [one for row in step for one in row]
        mine = [[step[row] for row in part] for part in shares[self.rank]]
        with stalls.timed("decode_s"):
            self._encode_again([one for part in mine for row in part for one in row if one.encoded is None])
            parts = tuple(self._collated(part) for part in mine)
        for one in everybody:
            one.encoded = None
        labels, tokens = sum(one.label_tokens for one in everybody), sum(one.tokens for one in everybody)
        return GenerativeBatch(parts, position, labels, tokens, len(everybody), left_out, stalls)

    def _collated(self, part: list[list[_Member]]) -> Collated:
        rows = [[one.encoded for one in row if one.encoded is not None] for row in part]
        if self.stage.pack:
            return packed(rows, self.encoder.budget.tokens, self.encoder.layout)
        return padded([sample for [sample] in rows], self.encoder.layout)

    def _order(self, fit: list[_Member], rows: list[list[int]], start: Sequence[int]) -> list[list[int]]:
        """The rows as the steps take them: packs shuffled; samples by batches of similar length, which are shuffled."""
        draw = np.random.default_rng([self.seed, *start])
        if self.stage.pack:
            return [rows[place] for place in draw.permutation(len(rows)).tolist()]
        size = self.stage.batch_size
        by_length = sorted(rows, key=lambda row: fit[row[0]].tokens)
        shuffled = draw.permutation(len(rows) // size).tolist()
        return [row for batch in shuffled for row in by_length[batch * size : (batch + 1) * size]]

    def _filled(self, stalls: Stalls) -> tuple[list[_Member], list[list[int]]]:
        """The members of the next window, at fault or not, and which of those that are fit share a row."""
        while True:
            fit = [one for one in self.waiting if not one.fault]
            rows = self._rows(fit)
            if rows is None:
                self._draw(stalls)
                continue
            first_out = fit[sum(map(len, rows))]
            members = []
            while self.waiting[0] is not first_out:
                members.append(self.waiting.popleft())
            return members, rows

    def _rows(self, fit: list[_Member]) -> list[list[int]] | None:
        """Rows of the window; None until more was drawn than it holds."""
        count = self.batches_in_window * self.stage.batch_size
        if self.stage.pack:
            sizes = [one.tokens for one in fit], [one.tiles for one in fit]
            return fullest(*sizes, self.encoder.budget, count)
        return [[place] for place in range(count)] if len(fit) > count else None

    def _draw(self, stalls: Stalls) -> None:
        """Draw some more and measure them: each rank its share, or all where none can be asked."""
        with stalls.timed("read_s"):
            found = [_Member(one) for one in islice(self.conversations, _AT_ONCE * self.ranks)]
        share = slice(self.rank * _AT_ONCE, (self.rank + 1) * _AT_ONCE) if self.united else slice(None)
        places = range(len(found))[share]
        with stalls.timed("decode_s"):
            self._encode([found[place] for place in places])
        if self.united is not None:
            with stalls.timed("agree_s"):
                for place, told in self.united.united({place: _told(found[place]) for place in places}).items():
                    _note(found[place], told)
        self.waiting.extend(found)
        self.seen += len(found)
        self.left_out.update(one.fault for one in found if one.fault)
        self._require_mostly_fit(found)

    def _encode(self, members: Sequence[_Member]) -> None:
        for _ in self.encoders.map(self._encode_one, members):
            pass

    def _encode_again(self, members: Sequence[_Member]) -> None:
        """Encode what another rank has measured, which may have been able to read what this one cannot."""
        self._encode(members)
        for one in members:
            if one.fault:
                raise RunError(f"rank {self.rank} cannot encode what another rank could: {one.sentence}")

    def _encode_one(self, member: _Member) -> None:
        try:
            sample = self.encoder.encode(member.drawn.conversation)
        except Unfit as error:
            member.fault, member.sentence = error.fault, str(error)
            return
        member.encoded = sample
        member.tokens, member.tiles, member.label_tokens = sample.tokens, sample.tiles, sample.label_tokens
        member.shortened = sample.shortened

    def _require_mostly_fit(self, found: Sequence[_Member]) -> None:
        for one in found:
            if one.fault in self.refused:
                raise RunError(f"{one.fault}: {one.sentence}")
            count = self.left_out[one.fault] if one.fault else 0
            if count > max(_ALLOWED, self.seen // 10):
                raise RunError(
                    f"{count:,} of {self.seen:,} samples cannot be learnt from ({one.fault}), such as {one.sentence}"
                )


def _told(member: _Member) -> str:
    """What other ranks need to know of a member."""
    measures = [member.tokens, member.tiles, member.label_tokens, member.shortened]
    return json.dumps([*measures, member.fault, member.sentence])


def _note(member: _Member, told: str) -> None:
    measures = json.loads(told)
    member.tokens, member.tiles, member.label_tokens, member.shortened, member.fault, member.sentence = measures
