"""The system calls that a decoder's child keeps: those of decoding in one process, and of reading what it imports late.

All others fail with EPERM: no file is made or written, no process started, no socket opened, no other process
signalled. The list says what is allowed, so that what kernels add stays forbidden. On a processor that is not in the
table, or a kernel that has no such filter, nothing is installed, and only the limits of resources hold.
"""

import ctypes
import errno
import os
import platform
import struct

_PROCESSORS = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # place, as audited, seccomp(2)
# Name → number on (x86_64, aarch64); -1 where it has no such call.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1),
    "poll": (7, -1), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "readv": (19, 65), "access": (21, -1), "sched_yield": (24, 124), "mremap": (25, 216), "mincore": (27, 232),
    "madvise": (28, 233), "dup": (32, 23), "nanosleep": (35, 101), "getpid": (39, 172), "sendto": (44, 206),
    "recvfrom": (45, 207), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, -1),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173),
    "sigaltstack": (131, 132), "gettid": (186, 178), "time": (201, -1), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "getdents64": (217, 61), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "getcpu": (309, 168), "getrandom": (318, 278), "membarrier": (324, 283),
    "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
_CLONE3 = 435
_TCGETS = 0x5401  # "is it a terminal?", which Python asks of every file
_CLONE_THREAD = 0x10000

# Berkeley packet filter: load a word, compare, return.
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER_AT, _PROCESSOR_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def keep_only_decoding() -> bool:
    """Give up all other system calls for good, in all threads; False where that is not to be had."""
    if platform.machine() not in _PROCESSORS:
        return False
    place, audited, seccomp = _PROCESSORS[platform.machine()]
    packed = b"".join(struct.pack("=HBBI", *one) for one in _filter(place, audited))
    program = _Program(len(packed) // 8, packed)
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program)) == 0


def _filter(place: int, audited: int) -> list[_Instruction]:
    """The program that the kernel runs before every call."""
    yes, no = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _FAIL | errno.EPERM)
    program = [(_LOAD, 0, 0, _PROCESSOR_AT), (_EQUAL, 1, 0, audited), (_RETURN, 0, 0, _KILL)]
    program += [(_LOAD, 0, 0, _NUMBER_AT)]
    for number in sorted(numbers[place] for numbers in _ALLOWED.values() if numbers[place] >= 0):
        program += [(_EQUAL, 0, 1, number), yes]
    for numbers, argument, test in _conditions():
        if numbers[place] >= 0:
            word = (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)  # the lower half: both processors are little-endian
            program += [(_EQUAL, 0, 4, numbers[place]), word, test, yes, no]
    # glibc takes clone where there is no clone3, whose flags a filter cannot see.
    return [*program, (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS), no]


def _conditions() -> list[tuple[tuple[int, int], int, _Instruction]]:
    """Calls that are allowed by one argument: (numbers, argument, test that falls through to "yes" or skips it)."""
    writes = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
    return [
        ((2, -1), 1, (_ANY_BIT, 1, 0, writes)),  # open
        ((257, 56), 2, (_ANY_BIT, 1, 0, writes)),  # openat
        ((16, 29), 1, (_EQUAL, 0, 1, _TCGETS)),  # ioctl
        ((72, 25), 1, (_GREATER, 1, 0, 3)),  # fcntl: descriptors and flags are looked at, no signals asked for
        ((56, 220), 0, (_ANY_BIT, 0, 1, _CLONE_THREAD)),  # clone: some codecs have threads
        ((62, 129), 0, (_EQUAL, 0, 1, os.getpid())),  # kill
        ((234, 131), 0, (_EQUAL, 0, 1, os.getpid())),  # tgkill: abort() does that to itself
    ]
