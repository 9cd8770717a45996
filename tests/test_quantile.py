"""Thresholds by histograms: exact, whatever the blocks; bits that are in the order of the values."""

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.selection import quantile
from curation.selection.quantile import Block, ordered_bits, thresholds

repeatably = settings(deadline=None, derandomize=True, max_examples=60)
few_bits = st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1), st.sampled_from([2**63, 2**63 - 1, 2**16 - 1]))
day = datetime.datetime(2020, 1, 1)

VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int8": (pa.int8(), [-128, -1, 0, 1, 127]),
    "int64": (pa.int64(), [-(2**63), -(2**53) - 1, -(2**53), 0, 2**53, 2**53 + 1, 2**63 - 1]),
    "uint64": (pa.uint64(), [0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    "float16": (pa.float16(), [-math.inf, -1.0, 0.0, 0.5, math.inf]),
    "float32": (pa.float32(), [-math.inf, -1e-45, 0.0, 1e-45, 0.25, 3e38, math.inf]),
    "float64": (pa.float64(), [-math.inf, -1e308, -5e-324, 0.0, 5e-324, 0.1, math.nextafter(0.1, 1), math.inf]),
    "decimal": (pa.decimal128(9, 2), [Decimal("-9.99"), Decimal("-0.01"), Decimal("0"), Decimal("1234567.89")]),
    "date": (pa.date32(), [datetime.date(1, 1, 1), datetime.date(1969, 12, 31), datetime.date(2020, 1, 1)]),
    "time": (pa.time64("us"), [datetime.time(0), datetime.time(0, 0, 0, 1), datetime.time(23, 59)]),
    "timestamp": (pa.timestamp("us"), [datetime.datetime(1, 1, 1), day, day + datetime.timedelta(microseconds=1)]),
    "duration": (pa.duration("ms"), [datetime.timedelta(-1), datetime.timedelta(0), datetime.timedelta(1)]),
}


@pytest.mark.parametrize(("kind", "ascending"), VALUES.values(), ids=VALUES)
def test_bits_are_in_the_order_of_the_values_and_null_has_none(kind: pa.DataType, ascending: list[Any]) -> None:
    mixed = [None, *ascending, None, *reversed(ascending)]
    bits_V, has_value_B = ordered_bits(pa.chunked_array([[0] * 0, *([value] for value in mixed)], kind))
    assert has_value_B.tolist() == [value is not None for value in mixed]
    half = len(ascending)
    assert bits_V.dtype == np.uint64
    assert (bits_V[: half - 1] < bits_V[1:half]).all()
    assert bits_V[:half].tolist() == bits_V[half:][::-1].tolist()


def test_nan_has_no_bits_and_both_zeros_have_the_same() -> None:
    bits_V, has_value_B = ordered_bits(pa.chunked_array([[0.0, math.nan, -0.0, -math.nan]]))
    assert has_value_B.tolist() == [True, False, True, False]
    assert bits_V[0] == bits_V[1]


def test_decimals_beyond_64_bits_are_never_in_the_wrong_order() -> None:
    values = [-(10**37), -(2**63) - 1, -(2**63), -1, 0, 2**63 - 1, 2**63, 2**64 + 5, 10**37]
    bits_V, _ = ordered_bits(pa.chunked_array([[Decimal(value) for value in values]], pa.decimal128(38, 0)))
    assert (bits_V[:-1] <= bits_V[1:]).all()
    assert len(set(bits_V.tolist())) >= 4


@repeatably
@given(st.lists(st.tuples(few_bits, st.integers(0, 3)), min_size=1, max_size=40), st.integers(1, 5), st.data())
def test_a_threshold_is_what_a_full_sort_finds(rows: list[tuple[int, int]], cuts: int, data: st.DataObject) -> None:
    bits_V, group_V = np.array([bits for bits, _ in rows], np.uint64), np.array([group for _, group in rows])
    few_rows, share = data.draw(st.sampled_from([0, 2, 100])), data.draw(st.floats(0, 1))

    def blocks() -> list[Block]:
        return list(zip(np.array_split(bits_V, cuts), np.array_split(group_V, cuts), strict=True))

    cut = thresholds(blocks, 4, lambda size: max(1, math.floor(share * size)), few_rows)
    near = 0
    for group in range(4):
        best = sorted(bits_V[group_V == group].tolist(), reverse=True)
        assert cut.size_G[group] == len(best)
        if best:
            rank = max(1, math.floor(share * len(best)))
            prefixes = [bits >> int(cut.shift) for bits in best]
            assert prefixes[rank - 1] == cut.bits_G[group]
            assert cut.left_G[group] == rank - sum(prefix > cut.bits_G[group] for prefix in prefixes)
            near += prefixes.count(int(cut.bits_G[group]))
    assert near <= few_rows or cut.shift == 0


@pytest.mark.parametrize("groups", [1, 300, 20_000])
def test_many_groups_take_more_rounds_of_fewer_bins_and_find_the_same(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantile, "_MOST_BINS", 1 << 17)
    random = np.random.default_rng(groups)
    bits_V, group_V = random.integers(0, 2**64, 60_000, np.uint64), random.integers(0, groups, 60_000)
    cut = thresholds(lambda: [(bits_V, group_V)], groups, lambda size: max(1, size // 3), few_rows=0)
    order_V = np.lexsort((~bits_V, group_V))
    starts_G = np.searchsorted(group_V[order_V], np.arange(groups))
    has_rows_G = cut.size_G > 0
    expected_G = bits_V[order_V[(starts_G + np.maximum(1, cut.size_G // 3) - 1)[has_rows_G]]]
    assert cut.shift == 0
    assert np.array_equal(cut.bits_G[has_rows_G], expected_G)
