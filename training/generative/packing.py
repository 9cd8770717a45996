"""Which samples share a row: best-fit decreasing on two budgets, tokens and tiles; and which rank takes which row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Budget:
    """What a row holds at most."""

    tokens: int
    tiles: int | None = None

    def holds(self, tokens: int, tiles: int) -> bool:
        """Whether a sample fits into an empty row."""
        return tokens <= self.tokens and (self.tiles is None or tiles <= self.tiles)


def best_fit(
    tokens: Sequence[int], tiles: Sequence[int], budget: Budget, most: int | None = None
) -> list[list[int]] | None:
    """Rows of places of samples: the largest first, each into the fullest row that still holds it.

    A sample's size is its larger share of the two budgets. None where more than `most` rows are needed. Every sample
    must fit into an empty row.
    """
    tokens_N, tiles_N = np.asarray(tokens, np.int64), np.asarray(tiles, np.int64)
    all_tiles = int(tiles_N.sum()) + 1 if budget.tiles is None else budget.tiles
    size_N = np.maximum(tokens_N / budget.tokens, tiles_N / max(all_tiles, 1))
    room_R, tile_room_R = (np.full(len(tokens_N), whole) for whole in (budget.tokens, all_tiles))
    rows: list[list[int]] = []
    for place in np.argsort(-size_N, kind="stable").tolist():
        begun = len(rows)
        fits_R = (room_R[:begun] >= tokens_N[place]) & (tile_room_R[:begun] >= tiles_N[place])
        row = int(np.where(fits_R, room_R[:begun], budget.tokens + 1).argmin()) if fits_R.any() else begun
        if row == begun:
            if begun == most:
                return None
            rows.append([])
        rows[row].append(place)
        room_R[row] -= tokens_N[place]
        tile_room_R[row] -= tiles_N[place]
    return rows


def fullest(tokens: Sequence[int], tiles: Sequence[int], budget: Budget, rows: int) -> list[list[int]] | None:
    """So many rows of the longest beginning of the samples that they hold; None where more samples might fit.

    Nothing is put off and no row is left half empty at the end: the next window begins with the sample that did not
    fit. So a place in the order of all samples says all that is needed to go on.
    """
    over = np.cumsum(tokens) > rows * budget.tokens
    if budget.tiles is not None:
        over |= np.cumsum(tiles) > rows * budget.tiles
    if not over.any():
        return None
    for count in range(int(over.argmax()), 0, -1):
        found = best_fit(tokens[:count], tiles[:count], budget, rows)
        if found is not None:
            while len(found) < rows:  # where one sample more would have taken two rows more
                found.append([max(found, key=len).pop()])
            return found
    raise AssertionError("a sample fits into a row")


def dealt(tokens: Sequence[int], ranks: int, parts: int) -> list[list[list[int]]]:
    """Rows for each rank and, of it, each part: equally many, of nearly equal tokens, similar ones in one part.

    Longest first, one for each rank in every round, where who has the fewest tokens takes the longest.
    """
    order = np.argsort(-np.asarray(tokens, np.int64), kind="stable").tolist()
    mine: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for first in range(0, len(order), ranks):
        poorest = sorted(range(ranks), key=lambda rank: (loads[rank], rank))
        for rank, row in zip(poorest, order[first : first + ranks], strict=True):
            mine[rank].append(row)
            loads[rank] += tokens[row]
    share = len(order) // ranks
    size = share // parts
    return [[of_rank[first : first + size] for first in range(0, share, size)] for of_rank in mine]
