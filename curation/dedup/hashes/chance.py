"""How many neighbours a perceptual hash has by chance, and the radius that is safe for a number of rows.

The distance of two unrelated codes depends on how many ones a kind of hash has. That is ideal: real pictures are
worse. Where a row has about one chance neighbour, components join the whole pool.
"""

from math import comb
from typing import Literal

MOST_EXPECTED = 0.01

Kind = Literal["phash", "dhash", "pdq"]


def chance_at(distance: int, kind: Kind = "phash") -> float:
    """Probability that the hashes of two unrelated pictures lie exactly `distance` bits apart.

    A pHash has 32 ones among 64, the first (DC) bit always; a PDQ 128 among 256; so their distances are even. A dHash
    is 64 coins.
    """
    if kind == "dhash":
        return comb(64, distance) / 2**64
    if distance % 2:
        return 0.0
    if kind == "pdq":
        return comb(128, distance // 2) ** 2 / comb(256, 128)
    return comb(31, distance // 2) * comb(32, distance // 2) / comb(63, 31)


def chance_within(distance: int, kind: Kind = "phash") -> float:
    """Probability that the hashes of two unrelated pictures lie within `distance` bits."""
    return sum(chance_at(nearer, kind) for nearer in range(distance + 1))


def safe_distance(rows: int, kind: Kind = "phash") -> int | None:
    """The largest distance at which a row expects at most `MOST_EXPECTED` chance neighbours among `rows` rows.

    Of kinds whose distances are even, the largest even one; None where even equal codes are expected.
    """
    step, bits = (1, 64) if kind == "dhash" else (2, 256 if kind == "pdq" else 64)
    safe = [distance for distance in range(0, bits, step) if rows * chance_within(distance, kind) <= MOST_EXPECTED]
    return max(safe, default=None)
