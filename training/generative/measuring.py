"""Conversations measured: drawn in order, encoded in threads, each rank its share; faults are counted, or stop all."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

from schemas.errors import RunError
from training.agreement import Agreement
from training.generative.collation import Encoded
from training.generative.conversations import Unfit
from training.generative.encoding import Encoder
from training.generative.mixture import Drawn
from training.stalls import Stalls

_AT_ONCE = 32  # conversations of each rank that are drawn and measured together
_ALLOWED = 100  # samples left out for one reason, or one in ten of those seen, whichever is more


@dataclass
class Member:
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
class Measuring:
    """Draws conversations and measures them: this rank its share, or all where no other can be asked."""

    conversations: Iterator[Drawn]
    encoder: Encoder
    threads: Executor
    refused: frozenset[str]
    rank: int
    ranks: int
    united: Agreement | None
    seen: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def draw(self, stalls: Stalls) -> list[Member]:
        """The next ones. Raises RunError at a fault that is refused, and where too many are at fault."""
        with stalls.timed("read_s"):
            found = [Member(one) for one in islice(self.conversations, _AT_ONCE * self.ranks)]
        share = slice(self.rank * _AT_ONCE, (self.rank + 1) * _AT_ONCE) if self.united else slice(None)
        places = range(len(found))[share]
        with stalls.timed("decode_s"):
            self._encode([found[place] for place in places])
        if self.united is not None:
            with stalls.timed("agree_s"):
                for place, told in self.united.united({place: _told(found[place]) for place in places}).items():
                    _note(found[place], told)
        self.seen += len(found)
        self.left_out.update(one.fault for one in found if one.fault)
        self._require_mostly_fit(found)
        return found

    def _encode(self, members: Sequence[Member]) -> None:
        for _ in self.threads.map(self._encode_one, members):
            pass

    def encode_again(self, members: Sequence[Member]) -> None:
        """Encode what another rank has measured, which may have been able to read what this one cannot."""
        self._encode(members)
        for one in members:
            if one.fault:
                raise RunError(f"rank {self.rank} cannot encode what another rank could: {one.sentence}")

    def _encode_one(self, member: Member) -> None:
        try:
            sample = self.encoder.encode(member.drawn.conversation)
        except Unfit as error:
            member.fault, member.sentence = error.fault, str(error)
            return
        member.encoded = sample
        member.tokens, member.tiles, member.label_tokens = sample.tokens, sample.tiles, sample.label_tokens
        member.shortened = sample.shortened

    def _require_mostly_fit(self, found: Sequence[Member]) -> None:
        for one in found:
            if one.fault in self.refused:
                raise RunError(f"{one.fault}: {one.sentence}")
            count = self.left_out[one.fault] if one.fault else 0
            if count > max(_ALLOWED, self.seen // 10):
                raise RunError(
                    f"{count:,} of {self.seen:,} samples cannot be learnt from ({one.fault}), such as {one.sentence}"
                )


def _told(member: Member) -> str:
    """What other ranks need to know of a member."""
    measures = [member.tokens, member.tiles, member.label_tokens, member.shortened]
    return json.dumps([*measures, member.fault, member.sentence])


def _note(member: Member, told: str) -> None:
    measures = json.loads(told)
    member.tokens, member.tiles, member.label_tokens, member.shortened, member.fault, member.sentence = measures
