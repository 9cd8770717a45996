"""Bringing the codes of a group together by some of their bits: a hash of those, and a sort by counting.

Codes lie as in comparing.py. H: buckets of a group; `ends_H` says where each ends, and begins the next.
"""

import numpy as np
from numba import njit

_MOST_BITS = 24
_CODES_OF_BUCKET = 16
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_AGAIN = np.uint64(0xD6E8FEB86659FD93)


@njit(cache=True, nogil=True)
def bucket_bits(rows, key_bits):  # type: ignore[no-untyped-def]
    """Into how many buckets to hash codes, as a power of two.

    More than there are keys, so that few keys share one; but no more than leave sixteen codes or more in each, for to
    compare those costs less than another bucket.
    """
    bits = 1
    while bits < min(key_bits + 2, _MOST_BITS) and 2 * _CODES_OF_BUCKET << bits < rows:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def mixed(words_XN, column, key_W):  # type: ignore[no-untyped-def]
    """A hash of the bits of a code that a key selects, whose high bits are good ones."""
    hashed = np.uint64(0)
    for word in range(len(key_W)):
        if key_W[word] != 0:
            hashed = (hashed ^ (words_XN[word, column] & key_W[word])) * _MIX
            hashed ^= hashed >> np.uint64(32)
    return hashed * _MIX_AGAIN


@njit(cache=True, nogil=True)
def into_buckets(words_XN, start, rows, key_W, bits, bucket_N, sorted_XN, ends_H):  # type: ignore[no-untyped-def]
    """Write the columns of a group to `sorted_XN` by bucket, and where each bucket ends to `ends_H`."""
    ends_H[: 1 << bits] = 0
    for row in range(rows):
        bucket = mixed(words_XN, start + row, key_W) >> np.uint64(64 - bits)
        bucket_N[row] = np.uint32(bucket)
        ends_H[np.int64(bucket)] += 1
    end = 0
    for bucket in range(1 << bits):  # where the bucket starts; writing its codes moves that to where it ends
        end += ends_H[bucket]
        ends_H[bucket] = end - ends_H[bucket]
    for row in range(rows):
        bucket = np.int64(bucket_N[row])
        place = ends_H[bucket]
        ends_H[bucket] = place + 1
        for word in range(len(words_XN)):
            sorted_XN[word, place] = words_XN[word, start + row]


@njit(cache=True, nogil=True)
def keep(sorted_XN, start, stop, large_XN, large_starts_G, groups):  # type: ignore[no-untyped-def]
    """Append a bucket to the large ones."""
    at = large_starts_G[groups]
    for word in range(len(sorted_XN)):
        large_XN[word, at : at + stop - start] = sorted_XN[word, start:stop]
    large_starts_G[groups + 1] = at + stop - start
