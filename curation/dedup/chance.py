"""How many neighbours a perceptual hash has by chance, and the radius that is safe for a number of rows.

A 64-bit pHash has 32 ones, the first (DC) bit among them, so two unrelated codes lie at distance 2j with probability
C(31, j) · C(32, j) / C(63, 31). That is ideal: real pictures are worse. Where a row has about one chance neighbour,
components join the whole pool.
"""

from math import comb

MOST_EXPECTED = 0.01


def chance_within(distance: int) -> float:
    """Probability that the 64-bit hashes of two unrelated pictures lie within `distance` bits."""
    return sum(comb(31, j) * comb(32, j) for j in range(min(distance // 2, 31) + 1)) / comb(63, 31)


def safe_distance(rows: int) -> int | None:
    """The largest even distance at which a row expects at most `MOST_EXPECTED` chance neighbours among `rows`."""
    safe = [distance for distance in range(0, 64, 2) if rows * chance_within(distance) <= MOST_EXPECTED]
    return max(safe, default=None)
