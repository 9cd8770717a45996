"""Rows by the size of a signal: those around any rank, and the first ones of each group, as `top` counts them.

The order is that of `top`: by value, ties to the lower key (rows stand in order of key), NULL and NaN without a rank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from curation.analytics.explorer.counting import group_counts, mark_kept, shift_for
from curation.analytics.explorer.facets import NO_VALUE, Category, Signal


@dataclass(frozen=True)
class Ranked:
    """The first rows of each of G groups: which of N, and how many of how many."""

    kept_N: np.ndarray
    size_G: np.ndarray
    quota_G: np.ndarray


def ranked(signal: Signal, base_N: np.ndarray, start: int, stop: int, *, highest: bool) -> np.ndarray:
    """The row numbers at ranks `start` to `stop` of the base; rows without a value come last, in order of key."""
    (count_K,) = group_counts(signal.code_N, base_N, _one_group(signal), 1, 0)
    with_value = int(count_K[:NO_VALUE].sum())
    found = [np.zeros(0, np.int64)]
    if start < with_value:
        found.append(_among_values(signal, base_N, count_K[:NO_VALUE], start, min(stop, with_value), highest=highest))
    if stop > with_value:
        without = np.flatnonzero(base_N & (signal.code_N >= NO_VALUE))
        found.append(without[max(start - with_value, 0) : stop - with_value])
    return np.concatenate(found)


def _among_values(
    signal: Signal, base_N: np.ndarray, count_K: np.ndarray, start: int, stop: int, *, highest: bool
) -> np.ndarray:
    ends_K = np.cumsum(count_K[::-1] if highest else count_K)
    first, last = (int(np.searchsorted(ends_K, rank, "right")) for rank in (start, stop - 1))
    before = int(ends_K[first - 1]) if first else 0
    low, high = (len(count_K) - 1 - last, len(count_K) - 1 - first) if highest else (first, last)
    near = np.flatnonzero(base_N & (signal.code_N >= low) & (signal.code_N <= high))
    return near[_order(signal.values_N[near], highest=highest)][start - before : stop - before]


def first_of_groups(
    signal: Signal, base_N: np.ndarray, group: Category | None, quota_of: Callable[[int], int], *, highest: bool
) -> Ranked:
    """The first rows of each group of the base; `quota_of` maps how many rows of it have a value to how many stay."""
    group_N = _one_group(signal) if group is None else group.group_N
    groups = 1 if group is None else len(group.labels) + 1
    shift = shift_for(groups)
    count_GK = group_counts(signal.code_N, base_N, group_N, groups, shift)[:, : NO_VALUE >> shift]
    if highest:
        count_GK = count_GK[:, ::-1]
    size_G = count_GK.sum(axis=1)
    quota_G = np.array([quota_of(size) for size in size_G.tolist()], np.int64)
    ends_GK = count_GK.cumsum(axis=1)
    cut_G = (ends_GK >= quota_G[:, None]).argmax(axis=1)
    left_G = quota_G - np.take_along_axis(ends_GK - count_GK, cut_G[:, None], 1)[:, 0]
    if highest:
        cut_G = count_GK.shape[1] - 1 - cut_G
    kept_N, is_near_N = mark_kept(signal.code_N, base_N, group_N, cut_G, shift, highest=highest)
    near = np.flatnonzero(is_near_N)
    near = near[_order(signal.values_N[near], highest=highest)]
    near = near[np.argsort(group_N[near], kind="stable")]
    near_group = group_N[near].astype(np.int64)
    place_T = np.arange(len(near)) - np.searchsorted(near_group, near_group)
    kept_N[near[place_T < left_G[near_group]]] = True
    return Ranked(kept_N, size_G, quota_G)


def _order(values_T: np.ndarray, *, highest: bool) -> np.ndarray:
    """The order of values, equal ones as they stand."""
    if len(values_T) and (values_T == values_T[0]).all():  # as where whole numbers have a code each
        return np.arange(len(values_T))
    if not highest:
        return np.argsort(values_T, kind="stable")
    return np.argsort(-values_T if values_T.dtype.kind == "f" else ~values_T, kind="stable")


def _one_group(signal: Signal) -> np.ndarray:
    return np.broadcast_to(np.uint16(0), signal.code_N.shape)
