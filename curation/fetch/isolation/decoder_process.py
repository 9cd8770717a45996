"""One child process that decodes: starting it, sending it batches, hearing of answers, and noticing that it is lost."""

import contextlib
import fcntl
import io
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence

from curation.fetch.isolation.confinement import Limits
from curation.fetch.isolation.decoder_child import MOST_SETUP_BYTES, Setup
from curation.fetch.isolation.decoder_memory import (
    MEMORY_BYTES,
    NONCE_BYTES,
    DecoderMemory,
    Forged,
    batch_frame,
    read_progress_frame,
)
from curation.fetch.isolation.decoding import Prepare, ToPicture
from curation.fetch.outcomes import DECODE_CRASH, DECODE_OOM, DECODE_TIMEOUT
from curation.fetch.pictures import large_buffers

# -I: neither the environment nor the working directory says what is imported; the paths are the parent's own.
_BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv[4:]; from curation.fetch.isolation.decoder_child import main; "
    "main(*map(int, sys.argv[1:4]))"
)
_PASSED_ON = ("LD_LIBRARY_PATH", "NUMBA_CACHE_DIR")
_ENVIRONMENT = {
    "PATH": "",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    **large_buffers.ENVIRONMENT,
}
_LOOK_S = 0.5  # how often a silent child is looked at
_LAST_BREATH_S = 0.5  # for a child that hung up to be gone, before it is killed


class Lost(Exception):
    """The child is of no more use: it died, hung, or wrote what is no answer. Says how, in a status and a sentence."""

    def __init__(self, status: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class DecoderProcess:
    """A running child. What it answered can be read until it is closed, also when it is lost."""

    def __init__(self, to_picture: ToPicture, prepare: Prepare, limits: Limits) -> None:
        self._limits = limits
        self._nonce = os.urandom(NONCE_BYTES)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = open(_sealed_memory(0), "rb", buffering=0)  # noqa: SIM115  # closed with the child
        with theirs, open(_sealed_memory(MEMORY_BYTES), "rb", buffering=0) as memory:
            self.memory = DecoderMemory(memory.fileno())
            self._process = _start(theirs.fileno(), memory.fileno(), self._errors.fileno())
        self.close = weakref.finalize(self, _end, self._process, self._channel, self._errors, self.memory)
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self.ready = False
        self._moved_at = time.monotonic()
        self._seen: tuple[bytes, int] | None = None  # the batch at work and how far it was when last looked at
        self._send(_packed(Setup(to_picture, prepare, limits, self._nonce)))

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, batch: bytes, room: int, nonces: Sequence[bytes], bodies: Sequence[bytes]) -> bool:
        """Give it a batch; False where it is gone already. `hear` says of what, after all that it had said."""
        return self._send(batch_frame(batch, room, self.memory.put_bodies(room, nonces, bodies)))

    def hear(self, wait_s: float, batch: bytes, room: int) -> tuple[bytes, int] | None:
        """A batch's nonce and how many of its pictures are done; None when nothing was said in `wait_s`.

        `batch` in `room` is what it must be at. Raises Lost, or Forged.
        """
        until = time.monotonic() + wait_s
        while True:
            frame = self._receive()
            if frame is None:
                self._require_progress((batch, self.memory.done(room)))
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return None
                if not self._poll.poll(min(left_s, _LOOK_S) * 1000) and self._process.poll() is not None:
                    raise self._death()
            elif self.ready:
                return read_progress_frame(frame)
            elif read_progress_frame(frame) == (self._nonce, 0):
                self.ready, self._moved_at = True, time.monotonic()
            else:
                raise Forged("a wrong word for being ready")

    def kill(self) -> None:
        """End it; what it has answered can still be read."""
        self._process.kill()
        self._process.wait()

    def errors(self) -> str:
        """The last that it wrote on its standard error before it was ready."""
        written = os.pread(self._errors.fileno(), 2**16, 0).decode(errors="replace").strip()
        return written.splitlines()[-1] if written else ""

    def _send(self, frame: bytes) -> bool:
        try:
            return self._channel.send(frame, socket.MSG_DONTWAIT) == len(frame)
        except OSError:
            return False

    def _receive(self) -> bytes | None:
        try:
            try:
                frame = self._channel.recv(64, socket.MSG_DONTWAIT)
            except ConnectionResetError:  # said once, where it left a batch unread, and before all that it had written
                frame = self._channel.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not frame:
            raise self._death()
        return frame

    def _require_progress(self, seen: tuple[bytes, int]) -> None:
        now = time.monotonic()
        limit_s = self._limits.picture_s if self.ready else self._limits.start_s
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        elif now - self._moved_at > limit_s:
            raise Lost(DECODE_TIMEOUT, f"the decoder was still at the picture after {limit_s:g} s and was killed")

    def _death(self) -> Lost:
        try:
            code = self._process.wait(_LAST_BREATH_S)
        except subprocess.TimeoutExpired:
            return Lost(DECODE_CRASH, "the decoder hung up at the picture")
        if code == -signal.SIGKILL:
            return Lost(DECODE_OOM, "the decoder was killed (SIGKILL) at the picture, as happens when memory runs out")
        how = f"died of {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return Lost(DECODE_CRASH, f"the decoder {how} at the picture")


def _start(socket_fd: int, memory_fd: int, errors_fd: int) -> "subprocess.Popen[bytes]":
    """A new interpreter, never a fork: this process has threads, whose locks a fork would copy."""
    environment = _ENVIRONMENT | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    paths = [os.path.abspath(path) for path in sys.path]
    numbers = [str(number) for number in (socket_fd, memory_fd, os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOTSTRAP, *numbers, *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors_fd,
        pass_fds=(socket_fd, memory_fd),
        env=environment,
        cwd="/",
    )


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket, errors: io.FileIO, memory: DecoderMemory) -> None:
    process.kill()
    process.wait()
    channel.close()
    errors.close()
    memory.close()


def _sealed_memory(size_bytes: int) -> int:
    """A file that no name leads to: nothing is left behind, however processes end. Its size stands once it is set."""
    fd = os.memfd_create("pairmill-decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if size_bytes:
        os.ftruncate(fd, size_bytes)  # a child that could undo it would kill its parent with SIGBUS
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def _packed(setup: Setup) -> bytes:
    packed = pickle.dumps(setup)
    assert len(packed) <= MOST_SETUP_BYTES, "what turns bytes into a picture is too large to be sent"
    return packed


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
