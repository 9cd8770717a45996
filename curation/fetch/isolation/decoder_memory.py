"""The memory that a decoder's child and its parent share, and the frames on the socket between them.

Two pairs of rooms, so that the child finds its next batch while the parent takes the last one's answers:

    | bodies 0 | answers 0 | bodies 1 | answers 1 |       answers: | done u64 | 32 records | bytes of pictures ... |

The rooms are large but sparse: only pages that were written take memory. A record counts when its nonce is that of
the picture that it stands for, and when what it says can be true; the child writes all of it, so nothing is believed.
"""

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from curation.fetch.isolation.decoding import MOST_BYTES
from curation.fetch.pictures.to_stored import Stored
from schemas.pixels import MOST_SIDE_PX, DecodeError, stored_format

MOST_PICTURES = 32  # in one batch
NONCE_BYTES = 16
ROOMS = 2

_ENTRY = struct.Struct("<16sQQ")  # nonce, offset, length
_HEAD = struct.Struct("<16sB")  # of a batch: nonce, room
_PROGRESS = struct.Struct("<16sI")  # nonce of the batch, pictures that are done
_DONE = struct.Struct("<Q")
_RECORD = struct.Struct("<16sIIIIQQ")  # nonce, kind, format, width_px, height_px, offset, length
_RECORDS_AT = 64
PAYLOAD_AT = 4096
_ROOM_BYTES = MOST_BYTES + 2**16  # a multiple of any page
_KEPT_BYTES = 16 * 2**20  # of each room; what a batch needed beyond is given back
MEMORY_BYTES = 2 * ROOMS * _ROOM_BYTES
MOST_FRAME_BYTES = _HEAD.size + MOST_PICTURES * _ENTRY.size

_PICTURE, _ERROR, _NO_ROOM = 1, 2, 3
_FORMATS = ("jpg", "png", "webp")
_MOST_ERROR_BYTES = 2000
_STATUS_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


class Forged(Exception):
    """What the child wrote cannot be an answer."""


@dataclass(frozen=True)
class Entry:
    """Where the child finds a picture of a batch."""

    nonce: bytes
    offset: int
    length: int


class DecoderMemory:
    """The rooms. The parent puts bodies and reads answers; the child does the reverse."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, MEMORY_BYTES)
        self._view = memoryview(self._map)

    def put_bodies(self, room: int, nonces: Sequence[bytes], bodies: Sequence[bytes]) -> list[Entry]:
        """Write a batch; the answers of the last one in that room are forgotten."""
        start = at = 2 * room * _ROOM_BYTES
        entries = []
        for nonce, body in zip(nonces, bodies, strict=True):
            self._view[at : at + len(body)] = body
            entries.append(Entry(nonce, at - start, len(body)))
            at += len(body)
        _DONE.pack_into(self._view, self._answers(room), 0)
        return entries

    def body(self, room: int, entry: Entry) -> bytes:
        """The bytes of a picture."""
        at = 2 * room * _ROOM_BYTES + entry.offset
        return bytes(self._view[at : at + entry.length])

    def put_answer(self, room: int, place: int, nonce: bytes, answer: Stored | DecodeError, at: int) -> int | None:
        """Write the answer for a picture, its bytes from `at` on; where the next may begin, None if there is no room.

        The first answer of a room always finds place.
        """
        answers = self._answers(room)
        if isinstance(answer, Stored):
            payload, kind, form = answer.bytes, _PICTURE, _FORMATS.index(answer.format)
            width_px, height_px = answer.original_width_px, answer.original_height_px
        else:
            payload, kind, form = f"{answer.status}\n{answer}".encode()[:_MOST_ERROR_BYTES], _ERROR, 0
            width_px = height_px = 0
        if at + len(payload) > _ROOM_BYTES:
            payload, kind = b"", _NO_ROOM
        self._view[answers + at : answers + at + len(payload)] = payload
        record = (nonce, kind, form, width_px, height_px, at, len(payload))
        _RECORD.pack_into(self._view, answers + _RECORDS_AT + place * _RECORD.size, *record)
        _DONE.pack_into(self._view, answers, place + 1)
        return None if kind == _NO_ROOM else at + len(payload)

    def done(self, room: int) -> int:
        """How many pictures of a batch the child says it has answered."""
        return int(_DONE.unpack_from(self._view, self._answers(room))[0])

    def answer(self, room: int, place: int, nonce: bytes) -> Stored | DecodeError | None:
        """The answer for a picture; None where its batch had no room left for it. Raises Forged."""
        answers = self._answers(room)
        record = _RECORD.unpack_from(self._view, answers + _RECORDS_AT + place * _RECORD.size)
        found, kind, form, width_px, height_px, at, length = record
        if found != nonce:
            raise Forged("an answer without the nonce of its picture")
        if kind == _NO_ROOM and place:
            return None
        if kind not in (_PICTURE, _ERROR) or at < PAYLOAD_AT or at + length > _ROOM_BYTES:
            raise Forged("an answer that lies outside of its room")
        payload = bytes(self._view[answers + at : answers + at + length])
        if kind == _ERROR:
            return _error(payload)
        if not (form < len(_FORMATS) and 0 < width_px <= MOST_SIDE_PX and 0 < height_px <= MOST_SIDE_PX):
            raise Forged("a picture of an impossible size or format")
        try:
            if stored_format(payload) == _FORMATS[form]:
                return Stored(payload, _FORMATS[form], width_px, height_px)
        except DecodeError:
            pass
        raise Forged("bytes that are no picture of the format that they are said to have")

    def release(self, room: int) -> None:
        """Give back the pages that only a large batch needed."""
        for start in (2 * room * _ROOM_BYTES, self._answers(room)):
            self._map.madvise(mmap.MADV_REMOVE, start + _KEPT_BYTES, _ROOM_BYTES - _KEPT_BYTES)

    def close(self) -> None:
        """Unmap it."""
        self._view.release()
        self._map.close()

    def _answers(self, room: int) -> int:
        return (2 * room + 1) * _ROOM_BYTES


def _error(payload: bytes) -> DecodeError:
    status, _, message = payload.decode(errors="replace").partition("\n")
    if not 0 < len(status) <= 40 or not _STATUS_CHARACTERS.issuperset(status) or len(payload) > _MOST_ERROR_BYTES:
        raise Forged("a failure without a status")
    return DecodeError(message, status)


def batch_frame(nonce: bytes, room: int, entries: Sequence[Entry]) -> bytes:
    """What tells the child of a batch."""
    packed = (_ENTRY.pack(entry.nonce, entry.offset, entry.length) for entry in entries)
    return b"".join([_HEAD.pack(nonce, room), *packed])


def read_batch_frame(frame: bytes) -> tuple[bytes, int, list[Entry]]:
    """Nonce, room and entries of a batch."""
    nonce, room = _HEAD.unpack_from(frame)
    return nonce, room, [Entry(*fields) for fields in _ENTRY.iter_unpack(frame[_HEAD.size :])]


def progress_frame(nonce: bytes, done: int) -> bytes:
    """What tells the parent that the first pictures of a batch have their answers."""
    return _PROGRESS.pack(nonce, done)


def read_progress_frame(frame: bytes) -> tuple[bytes, int]:
    """Nonce of the batch and number of pictures that are done. Raises Forged."""
    if len(frame) != _PROGRESS.size:
        raise Forged("a message that is none")
    nonce, done = _PROGRESS.unpack(frame)
    return nonce, done
