"""In which order the rows of a curated set are seen: by seed and epoch alone, and from any place without reading."""

from collections.abc import Iterator, Sequence

import numpy as np

Group = tuple[int, ...]
"""Numbers of shards that are read together and shuffled among each other."""


def groups_of_epoch(rows_per_shard: Sequence[int], shuffle_rows: int, seed: Sequence[int], epoch: int) -> list[Group]:
    """All shards in the order of that epoch, in groups of at least `shuffle_rows` rows (the last may have fewer)."""
    order = np.random.default_rng([*seed, epoch, 0]).permutation(len(rows_per_shard))
    groups: list[Group] = []
    group: list[int] = []
    for shard in order.tolist():
        group.append(shard)
        if sum(rows_per_shard[s] for s in group) >= shuffle_rows:
            groups.append(tuple(group))
            group = []
    return [*groups, tuple(group)] if group else groups


def order_from(
    rows_per_shard: Sequence[int], shuffle_rows: int, seed: Sequence[int], start: int
) -> Iterator[tuple[int, Group, np.ndarray]]:
    """(epoch, group, positions within the group) without end, after `start` rows have been seen."""
    epoch, skip = divmod(start, sum(rows_per_shard))
    while True:
        for number, group in enumerate(groups_of_epoch(rows_per_shard, shuffle_rows, seed, epoch), 1):
            rows = sum(rows_per_shard[s] for s in group)
            if skip < rows:
                yield epoch, group, np.random.default_rng([*seed, epoch, number]).permutation(rows)[skip:]
            skip = max(0, skip - rows)
        epoch += 1


def next_set(seen: Sequence[int], weights: Sequence[float]) -> int:
    """Which set the next row comes from, so that the rows seen stay in proportion to the weights."""
    return min(range(len(seen)), key=lambda i: ((seen[i] + 1) / weights[i], i))
