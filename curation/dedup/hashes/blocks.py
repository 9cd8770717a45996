"""Which bits of a hash to compare first, so that every pair within a Hamming distance meets in a bucket.

Cut the bits into m = distance + k blocks. Two codes within `distance` disagree in at most `distance` blocks, so at
least k blocks agree: a table for each choice of k blocks, keyed by them, misses no pair. (Pigeonhole; Norouzi et al.
2012, Manku et al. 2007.) The tables are walked as a tree: first the codes that agree in one block, within them those
that agree in a later one too, and so on, until few are left to compare. A pair belongs to the lowest of the blocks in
which it agrees, so it disagrees in each block that was passed over, and is found once.

W: words of 64 bits in a code; B: blocks; E: blocks passed over. A block is a mask over the bits of a code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

MOST_KEY_BLOCKS = 6

# Measured on one core of a Xeon; only their ratio matters, and only to speed. By words in a code.
NS_PER_ROW_AND_TABLE = {1: 15.0, 4: 45.0}
NS_PER_CANDIDATE = {1: 0.05, 4: 0.14}


@dataclass(frozen=True)
class Table:
    """Pairs of codes that agree in all bits of `agreed_W` and disagree somewhere in each mask of `apart_EW`.

    Codes are brought together by the bits of `key_W`, the block that was agreed in last. `wanted` more of the blocks
    `later_BW` have to agree, and at most `spare` of them may be passed over.
    """

    key_W: np.ndarray
    agreed_W: np.ndarray
    apart_EW: np.ndarray
    later_BW: np.ndarray
    wanted: int
    spare: int

    def narrowed(self) -> Iterator["Table"]:
        """The tables in which one of the later blocks agrees: together they hold every pair of this one, once."""
        for passed in range(self.spare + 1 if self.wanted else 0):
            key_W = self.later_BW[passed]
            yield Table(
                key_W=key_W,
                agreed_W=self.agreed_W | key_W,
                apart_EW=np.concatenate([self.apart_EW, self.later_BW[:passed]]),
                later_BW=self.later_BW[passed + 1 :],
                wanted=self.wanted - 1,
                spare=self.spare - passed,
            )

    def cut(self, varying_W: np.ndarray, distance: int, k: int) -> "Table":
        """The same pairs within `distance`, to be found by k of distance + k new blocks of the bits `varying_W`."""
        blocks_BW = cut(varying_W, distance + k)
        return Table(self.key_W, self.agreed_W, self.apart_EW, blocks_BW, wanted=k, spare=distance)


def all_pairs(words: int) -> Table:
    """The table of all pairs of codes of so many words, which nothing brings together."""
    none_W, none_EW = np.zeros(words, np.uint64), np.empty((0, words), np.uint64)
    return Table(none_W, none_W, none_EW, none_EW, wanted=0, spare=0)


def bits_in(mask_W: np.ndarray) -> int:
    """How many bits a mask selects."""
    return int(np.bitwise_count(mask_W).sum())


def cut(mask_W: np.ndarray, blocks: int) -> np.ndarray:
    """The bits of a mask in so many nearly equal blocks, as masks `blocks_BW`."""
    places = [(word, bit) for word in range(len(mask_W)) for bit in range(64) if int(mask_W[word]) >> bit & 1]
    blocks_BW = np.zeros((blocks, len(mask_W)), np.uint64)
    for place, (word, bit) in enumerate(places):
        blocks_BW[place * blocks // len(places), word] |= np.uint64(1 << bit)
    return blocks_BW


def key_blocks(rows: int, candidates: float, bits: int, distance: int, words: int) -> int:
    """The k that makes finding the pairs within `distance` among so many candidates cheapest; 0 compares them all."""
    nothing_W, none_BW = np.zeros(words, np.uint64), np.empty((0, words), np.uint64)

    def cost_s(k: int) -> float:
        tree = Table(nothing_W, nothing_W, none_BW, none_BW, wanted=k, spare=distance)
        return work_s(tree, rows, candidates, bits / max(distance + k, 1))

    return min(range(max(min(MOST_KEY_BLOCKS, bits - distance), 0) + 1), key=cost_s)


def work_s(table: Table, rows: int, candidates: float, block_bits: float | None = None) -> float:
    """The seconds that a table and those narrower take about, for codes whose bits are like tossed coins."""
    words = len(table.key_W)
    if block_bits is None:
        block_bits = bits_in(table.later_BW[0]) if table.wanted else 0
    tables = sum(comb(table.spare + depth, depth) for depth in range(table.wanted + 1))
    agreed_bits = bits_in(table.agreed_W) + table.wanted * block_bits
    met = comb(table.spare + table.wanted, table.wanted) * candidates / 2**agreed_bits
    return 1e-9 * (rows * tables * NS_PER_ROW_AND_TABLE[words] + met * NS_PER_CANDIDATE[words])
