"""Let a process keep the memory of large pictures for the next ones, instead of asking the kernel anew for each.

glibc maps and unmaps every large buffer until it has seen some freed: 120 page faults and 0.3 ms for each picture.
"""

import contextlib
import ctypes

MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 32 * 2**20, 64 * 2**20
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(TRIM_THRESHOLD_BYTES),
}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # from malloc.h


def keep_large_buffers() -> None:
    """For this process from now on; a process that is to be started gets ENVIRONMENT. Where glibc is not, nothing."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
