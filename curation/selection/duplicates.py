"""Who is whose duplicate among rows: by equality or likeness, inside one set or in another, and what to tell of it.

N: rows; M: others.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from curation.selection.likeness.likeness import Likeness, pairs_of_sides, scratch
from curation.selection.step import Desk

Facts = dict[str, Any]


def equal_leaders(columns: pa.Table, rank_N: np.ndarray, desk: Desk) -> tuple[np.ndarray, Facts]:
    """The first of the rows equal to each in all columns, as `leader_N`; NULL in any leads itself."""
    from curation.dedup.exact import leaders_of_equal

    return leaders_of_equal(columns, rank_N, desk.spill), {}


def like_leaders(
    likeness: Likeness, rows: pa.Table, rank_N: np.ndarray, rule: Any, desk: Desk
) -> tuple[np.ndarray, Facts]:
    """The row that each gives way to by a rule of survivors, as `leader_N`; what does not compare leads itself."""
    from curation.dedup.leaders import leaders

    with scratch(desk) as folder:
        (side,) = likeness.sides([rows], desk, folder)
        pairs, facts = pairs_of_sides(likeness, side, None, desk, folder, connected=rule == "components")
        return leaders(side.group_N, pairs, rank_N, rule), {**side.facts, **facts}


def rank_of_equal(rows: pa.Table, others: pa.Table, names: list[str], desk: Desk) -> tuple[np.ndarray, Facts]:
    """The position of the first of the others that equals each row in all columns, as `other_N`; -1 for none."""
    from curation.dedup.exact import lowest_rank_of_equal

    ranks = np.arange(others.num_rows)
    return lowest_rank_of_equal(rows.select(names), others.select(names), ranks, desk.spill), {}


def nearest_like(likeness: Likeness, rows: pa.Table, others: pa.Table, desk: Desk) -> tuple[np.ndarray, Facts]:
    """The position of the nearest of the others to each row, the first of equally near ones, as `other_N`."""
    from curation.dedup.leaders import first_by_rank, nearest

    with scratch(desk) as folder:
        side, other = likeness.sides([rows, others], desk, folder)
        first_V = first_by_rank(other.group_N, np.arange(others.num_rows))
        pairs, facts = pairs_of_sides(likeness, side, other, desk, folder)
        # Of equally near values the one whose first row comes first: the others' rows stand for them.
        nearest_U = nearest(((left_P, first_V[right_P], far_P) for left_P, right_P, far_P in pairs), side.groups)
    other_N = np.full(rows.num_rows, -1, np.int64)
    has_value_N = side.group_N >= 0
    other_N[has_value_N] = nearest_U[side.group_N[has_value_N]]
    return other_N, {**side.facts, **facts}


def group_facts(leader_N: np.ndarray, keys: pa.ChunkedArray) -> Facts:
    """How large the groups are that lost all rows but one, the largest by their leaders' keys, and a warning."""
    from curation.dedup.components import component_sizes

    if not len(leader_N):
        return {}
    sizes = component_sizes(leader_N, len(leader_N))
    largest = [(size, keys[root].as_py()) for size, root in sizes.largest if size > 1]
    facts: Facts = {"groups_by_size": {str(size): count for size, count in sizes.components_by_size.items()}}
    facts |= {"largest_groups": [{"rows": size, "kept": key} for size, key in largest]} if largest else {}
    return facts | ({"warnings": [sizes.warning]} if sizes.warning else {})
