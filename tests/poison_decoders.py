"""What a hostile picture may make of its decoder: bytes `POISON:<kind>` do it, all others are decoded as usual.

Imported in the decoder's child, so it imports little. `COMPANY:<kind>:<picture>` does it only where it is not alone.
"""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from curation.fetch.isolation.decoder_memory import DecoderMemory, progress_frame
from curation.fetch.pictures.to_stored import Stored, to_stored
from schemas.pixels import DecodeError

POISON, IN_COMPANY = b"POISON:", b"COMPANY:"


def to_picture(body: bytes) -> Stored:
    """Decode, or do what the bytes say."""
    if not body.startswith((POISON, IN_COMPANY)):
        return to_stored(body)
    _, kind, picture = body.split(b":", 2)
    if body.startswith(IN_COMPANY) and len(_batch_frame().f_locals["entries"]) == 1:
        return to_stored(picture)
    return _POISONS[kind.decode()](picture)


def ignoring_options(body: bytes, **_: object) -> Stored:
    """Stands for `to_stored`, whatever it is asked for."""
    return to_picture(body)


def poison(kind: str, picture: bytes = b"") -> bytes:
    """Bytes that do it; `picture` is for the kinds that decode one all the same."""
    assert kind in _POISONS
    return POISON + kind.encode() + b":" + picture


def poison_in_company(kind: str, picture: bytes) -> bytes:
    """Bytes that do it in a batch with others, and are a good picture alone."""
    return IN_COMPANY + poison(kind, picture).removeprefix(POISON)


def _segfault(_: bytes) -> Stored:
    ctypes.string_at(0)
    raise AssertionError


def _loop(_: bytes) -> Stored:
    while True:
        pass


def _fill_memory(_: bytes) -> Stored:
    hoard = []
    while True:
        hoard.append(bytearray(64 * 2**20))


def _fill_memory_within_pillow(_: bytes) -> Stored:
    try:
        _fill_memory(b"")
    except MemoryError as error:
        raise DecodeError("the picture cannot be decoded: MemoryError") from error
    raise AssertionError


def _fork_bomb(_: bytes) -> Stored:
    while True:
        os.fork()


def _thread_bomb(_: bytes) -> Stored:
    while True:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def _noise(picture: bytes) -> Stored:
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            os.write(fd, b"noise " * 100_000)
    return to_stored(picture)


def _a_file(_: bytes) -> Stored:
    os.close(os.open("/tmp/pairmill-poison-was-here", os.O_CREAT | os.O_WRONLY))
    raise AssertionError


def _a_socket(_: bytes) -> Stored:
    socket.create_connection(("127.0.0.1", 9)).close()
    raise AssertionError


def _a_program(_: bytes) -> Stored:
    os.execv("/bin/true", ["true"])


def _kill_the_parent(_: bytes) -> Stored:
    os.kill(os.getppid(), signal.SIGKILL)
    raise AssertionError


def _raise_the_limit(_: bytes) -> Stored:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    raise AssertionError


def _environment(_: bytes) -> Stored:
    raise DecodeError(" ".join([*sorted(os.environ), os.environ["PATH"], os.getcwd()]))


def _forged_word(picture: bytes) -> Stored:
    _channel().send(progress_frame(os.urandom(16), 1))
    return to_stored(picture)


def _garbled_word(picture: bytes) -> Stored:
    _channel().send(b"HTTP/1.1 200 OK")
    return to_stored(picture)


def _all_done(_: bytes) -> Stored:
    """Say that the whole batch is answered, in a child that is taken over and knows the batch's nonce."""
    frame = _batch_frame()
    _channel().send(progress_frame(frame.f_locals["batch"], len(frame.f_locals["entries"])))
    time.sleep(3600)
    raise AssertionError


def _answers_everywhere(_: bytes) -> Stored:
    """Fill the room of answers with plausible records that lack the nonces."""
    memory, room = _memory()
    start = memory._answers(room)
    memory._view[start + 64 : start + 4096] = struct.pack("<16sIIIIQQ", bytes(16), 1, 0, 9, 9, 4096, 9) * 84
    struct.pack_into("<Q", memory._view, start, 2**63)
    os._exit(0)


def _answer_outside(_: bytes) -> Stored:
    memory, room = _memory()
    frame = _batch_frame()
    place = frame.f_locals["done"] - 1
    record = (frame.f_locals["entry"].nonce, 1, 0, 9, 9, 4096, 2**62)
    struct.pack_into("<16sIIIIQQ", memory._view, memory._answers(room) + 64 + 48 * place, *record)
    _channel().send(progress_frame(frame.f_locals["batch"], place + 1))
    time.sleep(3600)
    raise AssertionError


def _hang_up(_: bytes) -> Stored:
    _channel().close()
    time.sleep(3600)
    raise AssertionError


def _channel() -> socket.socket:
    channel: socket.socket = _batch_frame().f_locals["channel"]
    return channel


def _memory() -> tuple[DecoderMemory, int]:
    locals_ = _batch_frame().f_locals
    return locals_["memory"], locals_["room"]


def _batch_frame() -> FrameType:
    frame: FrameType | None = sys._getframe()
    while frame is not None and "entries" not in frame.f_locals:
        frame = frame.f_back
    assert frame is not None
    return frame


def _raised(number: int) -> Callable[[bytes], Any]:
    return lambda _: signal.raise_signal(number)


_POISONS: dict[str, Callable[[bytes], Any]] = {
    "segfault": _segfault,
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(0),
    "sys_exit": lambda _: sys.exit(3),
    "killed": _raised(signal.SIGKILL),
    "loop": _loop,
    "sleep": lambda _: time.sleep(3600),
    "stopped": _raised(signal.SIGSTOP),
    "memory": _fill_memory,
    "memory_within_pillow": _fill_memory_within_pillow,
    "fork_bomb": _fork_bomb,
    "thread_bomb": _thread_bomb,
    "noise": _noise,
    "file": _a_file,
    "socket": _a_socket,
    "program": _a_program,
    "kill_parent": _kill_the_parent,
    "raise_limit": _raise_the_limit,
    "environment": _environment,
    "forged_word": _forged_word,
    "garbled_word": _garbled_word,
    "all_done": _all_done,
    "answers_everywhere": _answers_everywhere,
    "answer_outside": _answer_outside,
    "hang_up": _hang_up,
    "no_picture": lambda _: Stored(b"<script>", "jpg", 9, 9),
    "wrong_format": lambda _: Stored(b"\x89PNG\r\n\x1a\n" + bytes(9), "jpg", 9, 9),
    "impossible_size": lambda _: Stored(b"\xff\xd8\xff", "jpg", 9, 10**9),
    "unknown_format": lambda _: Stored(b"GIF89a", "gif", 9, 9),
    "huge": lambda number: Stored(b"\xff\xd8\xff" + bytes(50 * 2**20 - 3 + int(number)), "jpg", 9, 9),
    "too_huge": lambda _: Stored(b"\xff\xd8\xff" + bytes(128 * 2**20), "jpg", 9, 9),
    "key_error": lambda _: {}["missing"],
}
