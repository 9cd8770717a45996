"""What a decoder's child gives up before it sees its first picture: memory, files, and to outlive its parent.

What is left to it: processor time until it is killed, the memory that it is allowed, reading files that its user may
read, and answering its parent. It has no way to send anything anywhere else.
"""

import contextlib
import ctypes
import os
import resource
import signal
from dataclasses import dataclass

from curation.fetch.isolation.syscall_filter import keep_only_decoding

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_MOST_FILES = 64
_TO_KILL_FIRST = "800"  # of 1000: when memory runs out, the kernel shall take the decoder and not the worker


@dataclass(frozen=True)
class Limits:
    """What one decoder's child may use."""

    memory_bytes: int = 2 * 2**30  # beyond what it has when it starts
    picture_s: float = 15.0  # without an answer; generous, since machines are loaded
    start_s: float = 120.0  # until it is ready for the first picture
    pictures: int = 10_000  # after so many a new child takes over: leaks and what clings to one stay bounded


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent's thread is gone, however it went."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it went before we asked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def confine(limits: Limits) -> None:
    """Set the limits; what is imported afterwards must get by without writing."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_TO_KILL_FIRST)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails instead of killing
    _limit(resource.RLIMIT_AS, _address_space_bytes() + limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _MOST_FILES)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    keep_only_decoding()  # also what RLIMIT_NPROC would be for, which does not bind root and counts codecs' threads


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _address_space_bytes() -> int:
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[0]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) is refused")
