"""The child in which pictures are decoded: told on a socket which batch lies in the shared memory, it answers there.

Started by `curation.fetch.isolation.decoder_process`, with nothing of its parent's environment but what decoding needs.
It is confined before it sees a picture; from then on the parent believes nothing of what it writes.
"""

import contextlib
import gc
import os
import pickle
import socket
import sys
import time
from dataclasses import dataclass

from PIL import Image

from curation.fetch.isolation.confinement import Limits, confine, die_with_parent
from curation.fetch.isolation.decoder_memory import (
    MOST_FRAME_BYTES,
    PAYLOAD_AT,
    DecoderMemory,
    progress_frame,
    read_batch_frame,
)
from curation.fetch.isolation.decoding import Prepare, ToPicture, attempt

MOST_SETUP_BYTES = 64 * 2**10
_QUIET_S = 0.01  # answers wait no longer than that, and the picture at work, for the parent to hear of them


@dataclass(frozen=True)
class Setup:
    """The first thing a child is told."""

    to_picture: ToPicture
    prepare: Prepare
    limits: Limits
    nonce: bytes  # to be said when it is ready


def main(socket_fd: int, memory_fd: int, parent: int) -> None:
    """Decode until the parent hangs up."""
    die_with_parent(parent)
    channel = socket.socket(fileno=socket_fd)
    memory = DecoderMemory(memory_fd)
    os.close(memory_fd)
    setup: Setup = pickle.loads(channel.recv(MOST_SETUP_BYTES))
    sys.dont_write_bytecode = True
    setup.prepare()
    gc.collect()
    gc.freeze()  # what is loaded now is here to stay
    confine(setup.limits)
    channel.send(progress_frame(setup.nonce, 0))
    while frame := channel.recv(MOST_FRAME_BYTES):
        _decode(frame, memory, setup.to_picture, channel)


def _decode(frame: bytes, memory: DecoderMemory, to_picture: ToPicture, channel: socket.socket) -> None:
    """Answer a batch, picture by picture; one whose answer has no room begins the next batch."""
    batch, room, entries = read_batch_frame(frame)
    at, told, done = PAYLOAD_AT, time.monotonic(), 0
    for done, entry in enumerate(entries, start=1):
        answer = attempt(to_picture, memory.body(room, entry))
        end = memory.put_answer(room, done - 1, entry.nonce, answer, at)
        if end is None:
            break
        at = end
        if done < len(entries) and time.monotonic() - told > _QUIET_S:
            told = time.monotonic()
            with contextlib.suppress(BlockingIOError):  # a parent that does not listen hears of it later
                channel.send(progress_frame(batch, done), socket.MSG_DONTWAIT)
    channel.send(progress_frame(batch, done))


def load_codecs() -> None:
    """Load what Pillow would load with the first picture of each format."""
    Image.init()
