"""The k-th largest of many numbers by histograms that add up over parts: hardly a row is sorted, and none is held.

B: rows of a block; V: those of them that have a value; G: groups; K: bins. Numbers are compared as 64 bits whose order
is theirs. Each round counts the next bits of the rows that agree with the threshold so far: 16 bits where there is one
group, so four histograms of 65,536 bins would find it exactly, and one or two leave few enough rows to sort.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Block = tuple[np.ndarray, np.ndarray]  # bits_V (uint64), group_V
_MOST_BITS = 16
_MOST_BINS = 1 << 22  # of all groups together: 32 MB of counts
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True)
class Thresholds:
    """Where each group is cut: rows whose bits without the lowest `shift` lie above `bits_G` are in, those below out.

    Of those at it the first `left_G` are in, in whatever order ranks equals. `size_G` is how many rows a group has.
    """

    size_G: np.ndarray
    bits_G: np.ndarray
    shift: np.uint64
    left_G: np.ndarray


def thresholds(
    blocks: Callable[[], Iterable[Block]], groups: int, rank_of: Callable[[int], int], few_rows: int = 100_000
) -> Thresholds:
    """The bits that the rank-th largest row of each group has (1: the largest), as far as needed to leave few at them.

    `blocks` is called once per round and gives the same rows each time, in any blocks; `rank_of` maps a group's size to
    the rank, from 1 to the size.
    """
    at_once = max(1, min(_MOST_BITS, (_MOST_BINS // max(groups, 1)).bit_length() - 1))
    bits_G, left_G, shift = np.zeros(groups, np.uint64), np.zeros(groups, np.int64), 64
    size_G = left_G
    while shift > 0:
        bits, first = min(at_once, shift), shift == 64
        shift -= bits
        count_GK = np.zeros((groups, 1 << bits), np.int64)
        for bits_V, group_V in blocks():
            _count(count_GK, bits_V, group_V, shift, None if first else bits_G)
        if first:
            size_G = count_GK.sum(axis=1)
            left_G = np.array([rank_of(size) for size in size_G.tolist()], np.int64)
        reached_GK = count_GK[:, ::-1].cumsum(axis=1)
        steps_G = (reached_GK >= left_G[:, None]).argmax(axis=1)
        bin_G = (1 << bits) - 1 - steps_G
        in_bin_G = np.take_along_axis(count_GK, bin_G[:, None], 1)[:, 0]
        left_G = left_G - np.take_along_axis(reached_GK, steps_G[:, None], 1)[:, 0] + in_bin_G
        bits_G = bits_G << np.uint64(bits) | bin_G.astype(np.uint64)
        if in_bin_G.sum() <= few_rows:
            break
    return Thresholds(size_G, bits_G, np.uint64(shift), left_G)


def _count(
    count_GK: np.ndarray, bits_V: np.ndarray, group_V: np.ndarray, shift: int, bits_G: np.ndarray | None
) -> None:
    """Add the rows to the counts that agree with their group's threshold in all bits above these."""
    bins = count_GK.shape[1]
    shifted_V = bits_V >> np.uint64(shift)
    if bits_G is not None:
        agrees_V = shifted_V // np.uint64(bins) == bits_G[group_V]
        shifted_V, group_V = shifted_V[agrees_V], group_V[agrees_V]
    slot_V = group_V * bins + (shifted_V % np.uint64(bins)).astype(np.int64)
    if len(slot_V) * 8 > count_GK.size:
        count_GK += np.bincount(slot_V, minlength=count_GK.size).reshape(count_GK.shape)
    else:
        np.add.at(count_GK.reshape(-1), slot_V, 1)


def ordered_bits(values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, dates and times as uint64 `bits_V` of the same order, and which of B rows have a value: no NULL, no NaN.

    -0.0 and 0.0 are equal. Decimals beyond 64 bits are cut to the largest and smallest 64 bits: those may be equal here
    though they differ, but are never in the wrong order.
    """
    has_value_B = pc.invert(pc.is_null(values, nan_is_null=True)).to_numpy(zero_copy_only=False)
    found = values.filter(pa.array(has_value_B)).combine_chunks()
    kind = found.type
    if pa.types.is_floating(kind):
        raw_V = (found.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0).view(np.uint64)
        return np.where(raw_V & _SIGN, ~raw_V, raw_V | _SIGN), has_value_B
    if pa.types.is_unsigned_integer(kind):
        return found.to_numpy(zero_copy_only=False).astype(np.uint64), has_value_B
    if pa.types.is_decimal(kind):
        signed_V = _cut_to_64_bits(found)
    elif pa.types.is_integer(kind):
        signed_V = found.to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        signed_V = found.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_numpy().astype(np.int64)
    return signed_V.view(np.uint64) ^ _SIGN, has_value_B


def _cut_to_64_bits(decimals: pa.Array) -> np.ndarray:
    """Unscaled decimals as int64_V; those that do not fit become the largest or the smallest."""
    wide = decimals.cast(pa.decimal128(38, decimals.type.scale))
    halves_V2 = np.frombuffer(wide.buffers()[1] or b"", np.int64)[2 * wide.offset :][: 2 * len(wide)].reshape(-1, 2)
    low_V, high_V = halves_V2.T
    fits_V = high_V == low_V >> 63
    return np.where(fits_V, low_V, np.where(high_V < 0, np.iinfo(np.int64).min, np.iinfo(np.int64).max))
