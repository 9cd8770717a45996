"""Columns as histograms and thresholds see them: signals by their size, categories by their value.

N: rows of the version, in order of key. Every row has a uint16 code per facet: its slot (a bar of the histogram) times
1,024, and for signals the place within it, which grows with the value. So a count of codes is a histogram, and the rows
around any rank are found by a count and a sort of the few rows of one code, never by a sort of all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BARS, PER_SLOT, SLOTS = 60, 1024, 64
NAN_SLOT, NULL_SLOT = BARS, BARS + 1
NO_VALUE = np.uint16(BARS * PER_SLOT)  # codes from here on have no rank
NULL = np.uint16(NULL_SLOT * PER_SLOT)
_OTHERS = BARS - 1  # the slot of categories too many to have one each
_BLOCK_ROWS = 1 << 20
_SAMPLED_ROWS = 200_000
_TAIL = 0.005  # share of rows on either side that must not stretch the axis


@dataclass(frozen=True)
class Signal:
    """Numbers of N rows; bar b spans `start + b * width` to the next, the outermost bars all that lies beyond."""

    name: str
    values_N: np.ndarray
    code_N: np.ndarray
    start: float
    width: float
    low: float
    high: float

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return self.values_N.dtype.kind in "iu"

    def within(self, low: float | None, high: float | None) -> np.ndarray:
        """Which rows `value >= low AND value <= high` is true for, bool_N; as in DuckDB, NaN is above all."""
        kept_N = self.code_N < NULL
        if low is not None:
            kept_N &= ~(self.values_N < self._bound(low))
        if high is not None:
            kept_N &= self.values_N <= self._bound(high)
        return kept_N

    def _bound(self, value: float) -> float | np.floating:
        with np.errstate(over="ignore"):  # beyond single precision lies infinity
            return self.values_N.dtype.type(value) if self.values_N.dtype.kind == "f" else value


@dataclass(frozen=True)
class Category:
    """Values of N rows by number: `labels[group_N]`, the most frequent first; NULL has the number after the last."""

    name: str
    labels: tuple[str, ...]
    group_N: np.ndarray
    code_N: np.ndarray

    @cached_property
    def _places(self) -> dict[str | None, int]:
        places: dict[str | None, int] = {label: place for place, label in enumerate(self.labels)}
        return places | {None: len(self.labels)}

    @property
    def shown(self) -> int:
        """How many labels have a bar of their own."""
        return len(self.labels) if len(self.labels) <= BARS else _OTHERS

    def among(self, labels: Sequence[str | None]) -> np.ndarray:
        """Which rows have one of these values, bool_N; None is NULL."""
        is_wanted = np.zeros(len(self.labels) + 1, bool)
        is_wanted[[self._places[label] for label in labels if label in self._places]] = True
        return is_wanted[self.group_N]


def signal(name: str, values: np.ndarray, code_N: np.ndarray) -> Signal | None:
    """A signal of numbers, masked where NULL; its codes are written to `code_N`. None where no row has a value."""
    is_null_N = np.broadcast_to(np.ma.getmaskarray(values), values.shape)
    values_N = np.ma.getdata(values)
    known = values_N[~is_null_N]
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    start, width = axis(known)
    for begin in range(0, len(values_N), _BLOCK_ROWS):
        block = slice(begin, begin + _BLOCK_ROWS)
        value_B = values_N[block].astype(np.float64)
        place_B = np.nan_to_num((value_B - start) * (PER_SLOT / width), nan=0.0)
        code_B = np.clip(np.floor(place_B), 0, BARS * PER_SLOT - 1).astype(np.uint16)
        code_B[np.isnan(value_B)] = NO_VALUE
        code_B[is_null_N[block]] = NULL
        code_N[block] = code_B
    return Signal(name, values_N, code_N, start, width, known.min().item(), known.max().item())


def axis(known: np.ndarray) -> tuple[float, float]:
    """Where the bars of a histogram start and how wide they are: round numbers, not stretched by a few outliers."""
    sampled = known[:: max(1, len(known) // _SAMPLED_ROWS)]
    low, high = (float(edge) for edge in np.quantile(sampled, [_TAIL, 1 - _TAIL]))
    least, most = float(known.min()), float(known.max())
    if most - least <= 1.5 * (high - low):
        low, high = least, most
    width = _round_up((high - low) / (BARS - 2))
    if known.dtype.kind in "iu":
        width = max(1.0, math.ceil(width))
    return math.floor(low / width) * width, width


def _round_up(width: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    if width <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width * 0.999_999)


def category(name: str, labels: Sequence[str], group_N: np.ndarray, code_N: np.ndarray) -> Category:
    """A category of `len(labels)` values; its codes are written to `code_N`."""
    shown = len(labels) if len(labels) <= BARS else _OTHERS
    slot_of = np.minimum(np.arange(len(labels) + 1), shown)
    slot_of[-1] = NULL_SLOT
    code_N[:] = (slot_of * PER_SLOT).astype(np.uint16)[group_N]
    return Category(name, tuple(labels), group_N, code_N)
