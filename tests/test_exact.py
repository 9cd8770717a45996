"""Equal values: who leads them, what counts as equal, and that memory stays bounded."""

import datetime
import math
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import exact
from curation.dedup.exact import leaders_of_equal, lowest_rank_of_equal

repeatably = settings(deadline=None, derandomize=True, max_examples=25)
numbers = st.sampled_from([None, 0.0, -0.0, 1.5, math.nan, math.inf])
words = st.sampled_from([None, "", "a", "a\0", "A", "ä", "a\u0308"])
NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]


def same(one: Any, other: Any) -> bool:
    """The declared meaning of equal, for what is not NULL on top."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def slow_lowest(rows: list[tuple[Any, ...]], others: list[tuple[Any, ...]], rank: list[int]) -> list[int]:
    def equal(row: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return None not in row and None not in other and all(map(same, row, other))

    return [min((rank[m] for m, other in enumerate(others) if equal(row, other)), default=-1) for row in rows]


def table(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = (pa.float64(), pa.string(), pa.list_(pa.float32()))
    return pa.table({f"c{n}": pa.array([row[n] for row in rows], kind) for n, kind in enumerate(kinds)})


row_lists = st.lists(
    st.tuples(numbers, words, st.one_of(st.none(), st.lists(numbers, max_size=2))), min_size=1, max_size=30
)


@repeatably
@given(row_lists, row_lists, st.randoms(use_true_random=False))
def test_the_lowest_rank_is_found_among_all_that_equal_a_row_in_every_column(
    rows: list[tuple[Any, ...]], others: list[tuple[Any, ...]], random: Any
) -> None:
    rank = list(range(len(others)))
    random.shuffle(rank)
    found = lowest_rank_of_equal(table(rows), table(others), np.array(rank))
    assert found.tolist() == slow_lowest(rows, others, rank)


@repeatably
@given(row_lists, st.randoms(use_true_random=False))
def test_the_first_of_equal_rows_leads_them_and_a_row_with_null_leads_itself(
    rows: list[tuple[Any, ...]], random: Any
) -> None:
    rank = list(range(len(rows)))
    random.shuffle(rank)
    leaders = leaders_of_equal(table(rows), np.array(rank))
    lowest = slow_lowest(rows, rows, rank)
    assert leaders.tolist() == [n if low < 0 else rank.index(low) for n, low in enumerate(lowest)]


@pytest.mark.parametrize(
    ("one", "other", "kind", "equal"),
    [
        (0.0, -0.0, pa.float64(), True),
        (math.nan, NAN_WITH_PAYLOAD, pa.float64(), True),
        (math.nan, -math.nan, pa.float32(), True),
        ([0.0, math.nan], [-0.0, NAN_WITH_PAYLOAD], pa.list_(pa.float64()), True),
        ([1, None], [1, None], pa.list_(pa.int64()), True),
        ([1, None], [1], pa.list_(pa.int64()), False),
        ([], [], pa.list_(pa.int64()), True),
        (["a", "b"], ["a, b"], pa.list_(pa.string()), False),
        ({"x": 1, "y": None}, {"x": 1, "y": None}, pa.struct({"x": pa.int8(), "y": pa.int8()}), True),
        (b"\0\0", b"\0", pa.binary(), False),
        (b"same", b"same", pa.binary(4), True),
        ("a\u0308", "ä", pa.string(), False),
        ("a ", "a", pa.large_string(), False),
        (Decimal("1.50"), Decimal("1.5"), pa.decimal128(9, 2), True),
        (2**64 - 1, 2**64 - 2, pa.uint64(), False),
        (True, True, pa.bool_(), True),
        (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 0, 0, 1), pa.timestamp("us"), False),
        (None, None, pa.int64(), False),
        (None, None, pa.list_(pa.int64()), False),
    ],
    ids=str,
)
def test_what_counts_as_equal(one: Any, other: Any, kind: pa.DataType, equal: bool) -> None:
    column = pa.table({"c": pa.array([one, other], kind)})
    assert leaders_of_equal(column, np.array([1, 0])).tolist() == ([1, 1] if equal else [0, 1])


def test_columns_are_compared_by_place_whatever_they_are_called() -> None:
    ours, theirs = pa.table({"row": [1, 2], "rank": ["a", "b"]}), pa.table({"first": [2, 2], "value_0": ["b", "a"]})
    assert lowest_rank_of_equal(ours, theirs, np.array([7, 3])).tolist() == [-1, 7]


def test_no_rows_and_no_others_are_no_special_case() -> None:
    rows = pa.table({"c": pa.array([1, None], pa.int32())})
    assert leaders_of_equal(rows.slice(0, 0), np.empty(0, np.int64)).tolist() == []
    assert lowest_rank_of_equal(rows, rows.slice(0, 0), np.empty(0, np.int64)).tolist() == [-1, -1]


def test_more_than_memory_holds_is_grouped_over_files_that_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_MEMORY_LIMIT", "60MB")
    random = np.random.default_rng(0)
    value_N, rank_N = random.integers(0, 900_000, 1_000_000), random.permutation(1_000_000)
    found = leaders_of_equal(pa.table({"c": value_N, "d": value_N.astype(str)}), rank_N, tmp_path)
    order_N = np.lexsort((rank_N, value_N))
    starts = np.flatnonzero(np.append(True, np.diff(value_N[order_N]) != 0))
    assert np.array_equal(found[order_N], np.repeat(order_N[starts], np.diff(np.append(starts, len(order_N)))))
    assert list(tmp_path.iterdir()) == []
