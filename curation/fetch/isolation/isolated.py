"""Decodes in a child process, so that a picture may crash, hang or take over its decoder and costs only itself.

Pictures travel in batches through shared memory, two batches at a time, so that the child always has work. It answers
them in order; when it is lost, what it had answered counts, the next picture is suspected, and all others are sent
again. A suspect is tried once more, alone in a fresh child: only what fails there too is at fault.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from curation.fetch.isolation.confinement import Limits
from curation.fetch.isolation.decoder_child import load_codecs
from curation.fetch.isolation.decoder_memory import MOST_PICTURES, NONCE_BYTES, ROOMS, Forged
from curation.fetch.isolation.decoder_process import DecoderProcess, Lost
from curation.fetch.isolation.decoding import MOST_BYTES, Arrivals, Prepare, Token, ToPicture, attempt
from curation.fetch.outcomes import DECODE_CRASH, DECODE_OOM
from curation.fetch.pictures.to_stored import Stored
from schemas.errors import RunError
from schemas.pixels import DecodeError

_BATCH_BYTES = 8 * 2**20  # one more picture than that holds may begin a batch
_WORTH_SENDING = 8  # pictures, while the child has another batch to do
_MOST_FAILED_STARTS = 3  # one after another
_FOR_EVER_S = float("inf")


@dataclass(eq=False)
class _Picture:
    token: Any
    body: bytes
    nonce: bytes = b""
    strikes: int = 0


@dataclass(eq=False)
class _Batch:
    nonce: bytes
    room: int
    left: "deque[_Picture]"
    delivered: bool
    answered: int = 0


class IsolatedDecoder:
    """One child at a time, started when there is something to decode and replaced when it is lost.

    `to_picture` and `prepare` are sent to it by pickle. `prepare` runs before it is confined: what is first imported,
    compiled or found on disk later must do without writing a file or starting a process.
    """

    def __init__(self, to_picture: ToPicture, *, prepare: Prepare = load_codecs, limits: Limits | None = None) -> None:
        self._to_picture = to_picture
        self._prepare = prepare
        self._limits = limits or Limits()
        self._child: DecoderProcess | None = None
        self._decoded = 0  # by this child
        self._failed_starts = 0
        self._waiting: deque[_Picture] = deque()
        self._suspect: _Picture | None = None
        self._in_flight: deque[_Batch] = deque()
        self._answers: list[tuple[Any, Stored | DecodeError]] = []

    def stream(self, arrivals: "Arrivals[Token]") -> Generator[tuple[Token, Stored | DecodeError | None], None, None]:
        """What becomes of each arrival; see `Decoder`. Raises RunError where no child can be started."""
        try:
            for arrival in arrivals:
                if arrival is None:
                    yield from self._turn(eager=True)
                    continue
                token, body = arrival
                if body is None or len(body) > MOST_BYTES:
                    yield token, None if body is None else attempt(self._to_picture, body)
                    continue
                self._waiting.append(_Picture(token, body))
                yield from self._turn()
                while self._enough(MOST_PICTURES):
                    yield from self._turn(_FOR_EVER_S)
            while self._in_flight or self._waiting or self._suspect:
                yield from self._turn(_FOR_EVER_S, eager=True)
        finally:
            if self._in_flight or self._waiting or self._suspect:
                self.close()  # answers that nobody waits for must not be taken for others

    def close(self) -> None:
        """End the child and forget what it was to do."""
        self._drop_child()
        self._waiting.clear()
        self._in_flight.clear()
        self._answers.clear()
        self._suspect = None

    def _turn(self, wait_s: float = 0.0, *, eager: bool = False) -> Iterator[tuple[Any, Stored | DecodeError]]:
        """Send what may be sent, and take what is answered; wait for a first answer if there is none."""
        try:
            self._send(eager)
            while self._in_flight and (said := self._hear(wait_s)):
                wait_s = 0.0
                self._take(*said)
                self._send(eager)
        except Lost as lost:
            self._absorb(self._salvaged(lost))
        except Forged as forged:  # the child may have answered more; who of them did it cannot be told, so none counts
            self._absorb(Lost(DECODE_CRASH, f"the decoder gave {forged}"))
        answers, self._answers = self._answers, []
        yield from answers

    def _hear(self, wait_s: float) -> tuple[bytes, int] | None:
        assert self._child is not None
        head = self._in_flight[0]
        return self._child.hear(wait_s, head.nonce, head.room)

    def _enough(self, pictures: int) -> bool:
        return len(self._waiting) >= pictures or sum(len(one.body) for one in self._waiting) >= _BATCH_BYTES

    def _send(self, eager: bool) -> None:
        """Send the suspect alone, or batches until two are under way."""
        if self._in_flight and self._in_flight[0].left[0].strikes:
            return  # a suspect is alone
        if self._decoded >= self._limits.pictures:
            if self._in_flight:
                return
            self._drop_child()
        if self._suspect is not None:
            suspect, self._suspect = self._suspect, None
            self._send_batch([suspect])
            return
        while self._waiting and len(self._in_flight) < ROOMS:
            if self._in_flight and not (eager or self._enough(_WORTH_SENDING)):
                return
            self._send_batch(self._next_batch())

    def _next_batch(self) -> list[_Picture]:
        batch = [self._waiting.popleft()]
        size_bytes = len(batch[0].body)
        while self._waiting and len(batch) < MOST_PICTURES:
            size_bytes += len(self._waiting[0].body)
            if size_bytes > _BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _send_batch(self, pictures: list[_Picture]) -> None:
        if self._child is None:
            self._child = self._started()
        batch, *nonces = (os.urandom(NONCE_BYTES) for _ in range(1 + len(pictures)))
        for picture, nonce in zip(pictures, nonces, strict=True):
            picture.nonce = nonce
        room = 1 - self._in_flight[0].room if self._in_flight else 0
        delivered = self._child.send(batch, room, nonces, [picture.body for picture in pictures])
        self._in_flight.append(_Batch(batch, room, deque(pictures), delivered))

    def _take(self, nonce: bytes, done: int) -> None:
        """Take the answers that the child says it has given."""
        assert self._child is not None
        head = self._in_flight[0]
        if nonce != head.nonce or not head.answered < done <= head.answered + len(head.left):
            raise Forged("word of pictures that it was not given")
        while head.answered < done:
            picture = head.left[0]
            answer = self._child.memory.answer(head.room, head.answered, picture.nonce)
            if answer is None:  # no room was left for it: it begins the next batch
                self._send_again(head.left)
                head.left.clear()
                break
            if isinstance(answer, DecodeError) and answer.status == DECODE_OOM and not picture.strikes:
                raise Lost(DECODE_OOM, str(answer))  # a child that others have filled may be to blame
            self._answers.append((picture.token, answer))
            head.left.popleft()
            head.answered += 1
            self._decoded += 1
            self._failed_starts = 0
        if not head.left:
            self._child.memory.release(head.room)
            self._in_flight.popleft()

    def _salvaged(self, lost: Lost) -> Lost:
        """Take what a lost child had answered without saying so; returns how the next picture lost it."""
        assert self._child is not None
        self._child.kill()
        try:
            while self._in_flight and (done := self._child.memory.done(self._in_flight[0].room)):
                head = self._in_flight[0]
                self._take(head.nonce, min(done, head.answered + len(head.left)))
        except Forged:
            pass
        except Lost as earlier:
            return earlier
        return lost

    def _absorb(self, lost: Lost) -> None:
        """Suspect the first picture that a lost child had not answered, and send it and all others again."""
        child = self._child
        assert child is not None
        blamed = child.ready and bool(self._in_flight) and self._in_flight[0].delivered
        pictures = [picture for batch in self._in_flight for picture in batch.left]
        self._in_flight.clear()
        if blamed:
            pictures[0].strikes += 1
            if pictures[0].strikes == 2:
                fault = pictures.pop(0)
                self._answers.append((fault.token, DecodeError(f"{lost.sentence}, in company and alone", lost.status)))
        else:
            self._count_failed_start(lost, child.errors())
        self._send_again(pictures)
        self._drop_child()

    def _send_again(self, pictures: Iterable[_Picture]) -> None:
        """Put pictures back to where they came from, in their order."""
        again = list(pictures)
        if again and again[0].strikes:
            self._suspect = again.pop(0)
        self._waiting.extendleft(reversed(again))

    def _count_failed_start(self, lost: Lost, errors: str) -> None:
        self._failed_starts += 1
        if self._failed_starts == _MOST_FAILED_STARTS:
            self._drop_child()
            raise RunError(
                f"the decoder's process cannot be started: {lost.sentence.replace(' at the picture', '')}"
                f"{': ' if errors else ''}{errors}; `isolate: false` decodes without it"
            ) from lost

    def _started(self) -> DecoderProcess:
        try:
            return DecoderProcess(self._to_picture, self._prepare, self._limits)
        except OSError as error:
            raise RunError(f"the decoder's process cannot be started: {error}") from error

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child, self._decoded = None, 0
