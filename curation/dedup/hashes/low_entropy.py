"""Hash codes that say too little of their picture to have neighbours: those of flat ones.

A flat picture's pHash is 0 or its first bit alone, and what noise adds to that is no likeness; such codes are
exact-only: equal to each other, near to none. A PDQ says it by its quality (49 and less), which comes from outside.

U: distinct codes.
"""

import numpy as np

FEWEST_ONES = 8
LOWEST_PDQ_QUALITY = 50


def exact_only_of_64_bits(codes_U: np.ndarray) -> np.ndarray:
    """Which uint64 codes have fewer than 8 ones or more than 56; a pHash of a picture has about 32, a dHash too."""
    ones_U = np.bitwise_count(codes_U)
    return (ones_U < FEWEST_ONES) | (ones_U > 64 - FEWEST_ONES)


def exact_only_of_pdq(group_N: np.ndarray, quality_N: np.ndarray, codes: int) -> np.ndarray:
    """Which of so many distinct codes no row holds with a quality of 50 or more, which is what ThreatExchange asks for.

    `group_N` is each row's position among the distinct codes.
    """
    exact_only_U = np.ones(codes, np.bool_)
    exact_only_U[group_N[quality_N >= LOWEST_PDQ_QUALITY]] = False
    return exact_only_U
