"""Which bits of a hash to sort by, so that every pair within a Hamming radius meets in a bucket.

Cut 64 bits into m = distance + k blocks. Two codes within `distance` disagree in at most `distance` blocks, so at least
k blocks agree: a table for each of the C(m, k) choices of k blocks, keyed by them, misses no pair. k = 0 is one
table with one bucket, which is comparing all with all. (Pigeonhole; Norouzi et al. 2012, Manku et al. 2007.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

BITS = 64
MOST_KEY_BLOCKS = 6

# Measured on one core of an AMD EPYC; only their ratio matters, and only to speed.
_NS_PER_ROW_AND_TABLE = 80.0
_NS_PER_CANDIDATE = 0.1


@dataclass(frozen=True)
class Table:
    """How to move the bits of a code so that sorting by value sorts by one choice of key blocks.

    Block b of B holds `mask_B[b]` (right-aligned) at bit `source_B[b]` of a code and goes to bit `target_B[b]`; the
    key blocks become the highest bits, which `key_mask` selects. `earlier_masks` select, in moved codes, the blocks
    that a pair must disagree in for this table to be the first in which the pair meets.
    """

    source_B: np.ndarray
    target_B: np.ndarray
    mask_B: np.ndarray
    key_mask: np.uint64
    earlier_masks: np.ndarray


def key_blocks(rows: int, distance: int) -> int:
    """The k that makes joining `rows` distinct codes cheapest."""

    def cost_ns(k: int) -> float:
        key_bits = k * BITS / (distance + k) if k else 0.0
        candidates = rows * rows / 2 ** (1 + key_bits)
        return comb(distance + k, k) * (rows * _NS_PER_ROW_AND_TABLE + candidates * _NS_PER_CANDIDATE)

    return min(range(min(MOST_KEY_BLOCKS, BITS - distance) + 1), key=cost_ns)


def tables(distance: int, k: int) -> Iterator[Table]:
    """The C(distance + k, k) tables in which every pair within `distance` meets."""
    blocks = max(distance + k, 1)
    edges = [BITS * block // blocks for block in range(blocks + 1)]
    for keys in combinations(range(blocks), k):
        rest = [block for block in range(blocks) if block not in keys]
        yield _table([*keys, *rest], edges, keys)


def _table(order: list[int], edges: list[int], keys: tuple[int, ...]) -> Table:
    """The table whose moved codes hold the blocks in `order`, highest first."""
    widths = [edges[block + 1] - edges[block] for block in order]
    targets = [BITS - sum(widths[: place + 1]) for place in range(len(order))]
    masks = [(1 << width) - 1 for width in widths]
    moved = {block: mask << target for block, mask, target in zip(order, masks, targets, strict=True)}
    # A pair belongs to its k lowest agreeing blocks, so it meets first where no other block below the last key agrees.
    earlier = [moved[block] for block in order if block not in keys and keys and block < keys[-1]]
    return Table(
        source_B=np.array([edges[block] for block in order], np.uint64),
        target_B=np.array(targets, np.uint64),
        mask_B=np.array(masks, np.uint64),
        key_mask=np.uint64(sum(moved[block] for block in keys)),
        earlier_masks=np.array(earlier, np.uint64),
    )
