"""The loops over all rows: counts of codes under filters, and which rows a threshold keeps.

N: rows; F: facets; G: groups; K: codes. Each loop lets other threads run; rows are split among those that are there.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from curation.analytics.explorer.facets import NO_VALUE, SLOTS

_THREADS = min(4, len(os.sched_getaffinity(0)))
_BLOCK_ROWS = 16_384  # of which codes and flags stay in a core's own memory
_MOST_COUNTS = 1 << 22
_OF_NO_FACET = np.uint32(1 << 31)


def failed_by(kept_N: np.ndarray | None, rows: int) -> np.ndarray:
    """Bits of the filters that a row fails, uint32_N: so far of the one that is no facet's own, such as words."""
    return np.zeros(rows, np.uint32) if kept_N is None else np.where(kept_N, np.uint32(0), _OF_NO_FACET)


def note_failed(failed_N: np.ndarray, kept_N: np.ndarray, facet: int) -> None:
    """Set a facet's bit for the rows that its filter does not keep."""
    _split(len(failed_N), lambda rows: _note(failed_N[rows], kept_N[rows], np.uint32(1 << facet)))


def cross_counts(code_FN: np.ndarray, failed_N: np.ndarray) -> np.ndarray:
    """Rows per slot of each facet as int64 FS: those that every filter but the facet's own keeps (crossfilter.js)."""
    counts = _split(len(failed_N), lambda rows: _cross(code_FN[:, rows], failed_N[rows]))
    return np.sum(counts, axis=0)


def group_counts(code_N: np.ndarray, base_N: np.ndarray, group_N: np.ndarray, groups: int, shift: int) -> np.ndarray:
    """Rows of the base by group and code without its lowest `shift` bits, int64 GK."""
    counts = _split(len(code_N), lambda rows: _groups(code_N[rows], base_N[rows], group_N[rows], groups, shift))
    return np.sum(counts, axis=0)


def mark_kept(
    code_N: np.ndarray, base_N: np.ndarray, group_N: np.ndarray, cut_G: np.ndarray, shift: int, *, highest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of the base lie beyond their group's cut, and which at it: bool_N each."""
    kept_N, is_near_N = np.zeros(len(code_N), np.bool_), np.zeros(len(code_N), np.bool_)
    _split(
        len(code_N),
        lambda rows: _mark(
            code_N[rows], base_N[rows], group_N[rows], cut_G, shift, highest, kept_N[rows], is_near_N[rows]
        ),
    )
    return kept_N, is_near_N


def shift_for(groups: int) -> int:
    """How many low bits of a code must be left away so that the counts of all groups fit into memory."""
    return max(0, (groups * 65_536 // _MOST_COUNTS).bit_length())


def _split(rows: int, work: Callable[[slice], np.ndarray | None]) -> Sequence[np.ndarray]:
    each = -(-rows // _THREADS) or 1
    slices = [slice(start, min(start + each, rows)) for start in range(0, rows, each)] or [slice(0, 0)]
    with ThreadPoolExecutor(_THREADS) as threads:
        return [made for made in threads.map(work, slices) if made is not None]


@njit(cache=True, nogil=True)
def _note(failed_N, kept_N, bit):  # type: ignore[no-untyped-def]
    for row in range(len(failed_N)):
        if not kept_N[row]:
            failed_N[row] |= bit


@njit(cache=True, nogil=True)
def _cross(code_FN, failed_N):  # type: ignore[no-untyped-def]
    facets, rows = code_FN.shape
    counts_F4S = np.zeros((facets, 4, SLOTS), np.int64)  # of four, so that a count need not wait for the one before it
    for start in range(0, rows, _BLOCK_ROWS):
        end = min(start + _BLOCK_ROWS, rows)
        for facet in range(facets):
            others = ~(np.uint32(1) << np.uint32(facet))
            for row in range(start, end):
                counts_F4S[facet, row & 3, code_FN[facet, row] >> 10] += (failed_N[row] & others) == 0
    return counts_F4S.sum(axis=1)


@njit(cache=True, nogil=True)
def _groups(code_N, base_N, group_N, groups, shift):  # type: ignore[no-untyped-def]
    counts_GK = np.zeros((groups, 65_536 >> shift), np.int64)
    for row in range(len(code_N)):
        if base_N[row]:
            counts_GK[group_N[row], code_N[row] >> shift] += 1
    return counts_GK


@njit(cache=True, nogil=True)
def _mark(code_N, base_N, group_N, cut_G, shift, highest, kept_N, is_near_N):  # type: ignore[no-untyped-def]
    for row in range(len(code_N)):
        if base_N[row] and code_N[row] < NO_VALUE:
            code, cut = np.int64(code_N[row] >> shift), cut_G[group_N[row]]
            kept_N[row] = code > cut if highest else code < cut
            is_near_N[row] = code == cut
