"""Cosines of stored float16 vectors, decided exactly: a float16 number is an integer times 2^-24.

N, M: vectors; D: numbers per vector; P: pairs. Dot products are summed in integers, so neither the order of
summation nor the machine can change a bit; a cosine is then a few operations of IEEE float64 on those integers.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

WIDEST = 1 << 20  # the three sums below stay within int64 up to this width

# A float64 cosine has three roundings in its sum (of parts that do not cancel), two in each norm, one each in the
# norms' product and the quotient, and the threshold's own: together below 16 · 2^-53.
_UNDECIDED = 1e-14

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Vectors:
    """N float16 vectors as `bits_ND` (uint16), and their lengths `norm_N` (float64, in units of 2^-24)."""

    bits_ND: np.ndarray
    norm_N: np.ndarray

    @classmethod
    def of(cls, vectors_ND: np.ndarray) -> "Vectors":
        """Measure finite vectors that are not zero."""
        assert vectors_ND.dtype == np.float16, f"vectors are float16, not {vectors_ND.dtype}"
        assert vectors_ND.shape[1] <= WIDEST, f"at most {WIDEST} numbers per vector"
        bits_ND = np.ascontiguousarray(vectors_ND).view(np.uint16)
        rows_N = np.arange(len(bits_ND))
        return cls(bits_ND, np.sqrt(_as_float(_dots(bits_ND, bits_ND, rows_N, rows_N))))

    def taken(self, rows_M: np.ndarray) -> "Vectors":
        """Those vectors."""
        return Vectors(self.bits_ND[rows_M], self.norm_N[rows_M])

    def units(self, rows_M: np.ndarray, out_MD: np.ndarray) -> np.ndarray:
        """Write those vectors at length 1 to the first rows of `out_MD` (float32), and return these.

        Each number is rounded once, and off by less than 1.1 · 2^-24 of itself.
        """
        units_MD = out_MD[: len(rows_M)]
        _units(self.bits_ND, self.norm_N, rows_M, units_MD.view(np.uint32), units_MD)
        return units_MD


def usable(vectors_ND: np.ndarray) -> np.ndarray:
    """Which float16 vectors have a direction, bool_N: all numbers finite, one not zero."""
    usable_N = np.empty(len(vectors_ND), np.bool_)
    for start in range(0, len(vectors_ND), 1 << 14):
        tile = slice(start, start + (1 << 14))
        magnitudes = vectors_ND[tile].view(np.uint16) & np.uint16(0x7FFF)
        usable_N[tile] = (magnitudes < 0x7C00).all(axis=1) & magnitudes.any(axis=1)
    return usable_N


def cosines(left: Vectors, right: Vectors, left_P: np.ndarray, right_P: np.ndarray) -> np.ndarray:
    """The cosine of each pair as float64, the same bits everywhere."""
    return _cosines(left, right, left_P, right_P, _dots(left.bits_ND, right.bits_ND, left_P, right_P))


def at_least(
    cosine: Fraction, left: Vectors, right: Vectors, left_P: np.ndarray, right_P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs have dot > 0 and dot² ≥ cosine² · |x|² · |y|², exactly, as bool_P; and their cosines as float64_P."""
    parts = _dots(left.bits_ND, right.bits_ND, left_P, right_P)
    cosine_P = _cosines(left, right, left_P, right_P, parts)
    is_near_P = cosine_P >= float(cosine)
    for p in np.flatnonzero(np.abs(cosine_P - float(cosine)) <= _UNDECIDED):
        is_near_P[p] = _reaches(cosine, left.bits_ND[left_P[p]][None], right.bits_ND[right_P[p]][None])
    return is_near_P, cosine_P


def _reaches(cosine: Fraction, x_1D: np.ndarray, y_1D: np.ndarray) -> bool:
    """The decision in Python's integers."""
    first = np.zeros(1, np.int64)
    dot, x_squared, y_squared = (
        _as_integer(_dots(a, b, first, first)) for a, b in ((x_1D, y_1D), (x_1D, x_1D), (y_1D, y_1D))
    )
    return dot > 0 and dot**2 * cosine.denominator**2 >= cosine.numerator**2 * x_squared * y_squared


def _cosines(left: Vectors, right: Vectors, left_P: np.ndarray, right_P: np.ndarray, parts: Parts) -> np.ndarray:
    lengths_P = left.norm_N[left_P] * right.norm_N[right_P]
    return np.clip(_as_float(parts) / lengths_P, -1.0, 1.0)


def _as_float(parts: Parts) -> np.ndarray:
    """The sums in units of 2^-48, rounded to float64."""
    high_P, middle_P, low_P = (part.astype(np.float64) for part in parts)
    return high_P * 2.0**40 + (middle_P * 2.0**20 + low_P)


def _as_integer(parts: Parts) -> int:
    high, middle, low = (int(part[0]) for part in parts)
    return (high << 40) + (middle << 20) + low


@njit(cache=True, nogil=True)
def _dots(left_bits_ND, right_bits_MD, left_P, right_P):  # type: ignore[no-untyped-def]
    """Dot products of pairs in units of 2^-48 as high · 2^40 + middle · 2^20 + low, in which nothing can overflow.

    Magnitudes (below 2^40) are cut at bit 20, so that the parts of one product have one sign and do not cancel.
    """
    pairs = len(left_P)
    high_P, middle_P, low_P = np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    for p in range(pairs):
        x_D, y_D = left_bits_ND[left_P[p]], right_bits_MD[right_P[p]]
        high, middle, low = np.int64(0), np.int64(0), np.int64(0)
        for d in range(len(x_D)):
            x, y = _magnitude(x_D[d]), _magnitude(y_D[d])
            negative = -np.int64((x_D[d] ^ y_D[d]) >> 15)  # 0 or -1: (n ^ -1) + 1 is -n
            x_high, x_low, y_high, y_low = x >> 20, x & 0xFFFFF, y >> 20, y & 0xFFFFF
            high += ((x_high * y_high) ^ negative) - negative
            middle += ((x_high * y_low + x_low * y_high) ^ negative) - negative
            low += ((x_low * y_low) ^ negative) - negative
        high_P[p], middle_P[p], low_P[p] = high, middle, low
    return high_P, middle_P, low_P


@njit(inline="always")
def _magnitude(bits):  # type: ignore[no-untyped-def]
    """|x| · 2^24 of a float16, from its bits."""
    exponent, fraction = np.int64((bits >> 10) & 31), np.int64(bits & 1023)
    is_normal = np.int64(exponent > 0)
    return (fraction | (is_normal << 10)) << (exponent - is_normal)


@njit(cache=True, nogil=True)
def _units(bits_ND, norm_N, rows_M, out_bits_MD, out_MD):  # type: ignore[no-untyped-def]
    """Vectors at length 1; both outs are one memory.

    Shifted into a float32, a float16's exponent counts from 127 instead of 15, so its value is off by 2^-112.
    """
    for m in range(len(rows_M)):
        x_D, unit_bits_D, unit_D = bits_ND[rows_M[m]], out_bits_MD[m], out_MD[m]
        for d in range(len(x_D)):
            bits = np.uint32(x_D[d])
            unit_bits_D[d] = ((bits & np.uint32(0x7FFF)) << np.uint32(13)) | ((bits >> np.uint32(15)) << np.uint32(31))
        scale = 2.0**136 / norm_N[rows_M[m]]
        for d in range(len(x_D)):
            unit_D[d] = np.float32(np.float64(unit_D[d]) * scale)
