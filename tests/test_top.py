"""`top` and the order of rows: exact numbers, ties by key, NULL and NaN last."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.selection import top
from curation.selection.ordering import OrderTerm, parse_order_term, positions_in_order
from curation.selection.step import Decision
from curation.selection.top import Top
from schemas.errors import InputError

repeatably = settings(deadline=None, derandomize=True, max_examples=20)
scores = st.sampled_from([None, math.nan, -0.0, 0.0, 0.25, 0.5, -math.inf, math.inf])
row_lists = st.lists(st.tuples(scores, st.sampled_from([None, "en", "de"])), max_size=25)
Row = tuple[float | None, str | None]


def table(rows: list[Row], keys: list[str] | None = None) -> pa.Table:
    return pa.table(
        {
            "key": pa.array(keys or [f"{n:032x}" for n in range(len(rows))], pa.string()),
            "by_0": pa.array([row[0] for row in rows], pa.float32()),
            "per_0": pa.array([row[1] for row in rows], pa.string()),
        }
    )


def kept_keys(decision: Decision, rows: pa.Table) -> set[str]:
    return set(rows["key"].filter(pa.array(decision.kept)).to_pylist())


def slow_kept(rows: list[Row], quota: Any, descending: bool) -> list[bool]:
    """The definition: rows of a group by (value, position), the first `quota(size)` of those that have a value."""
    kept = [False] * len(rows)
    for group in {row[1] for row in rows}:
        valued = [n for n, row in enumerate(rows) if row[1] == group and row[0] is not None and not math.isnan(row[0])]
        best = sorted(valued, key=lambda n: (-rows[n][0] if descending else rows[n][0], n))  # type: ignore[operator]
        for n in best[: quota(len(valued))]:
            kept[n] = True
    return kept


@repeatably
@given(row_lists, st.decimals("0.01", "1", places=2), st.sampled_from(["desc", "asc"]))
def test_a_fraction_keeps_exactly_the_floor_of_each_group(rows: list[Row], fraction: Decimal, order: Any) -> None:
    decision = Top(by="s", fraction=fraction, per="language", order=order).decide(table(rows))
    expected = slow_kept(rows, lambda size: math.floor(Fraction(fraction) * size), order == "desc")
    assert decision.kept.tolist() == expected
    assert all(decision.row_reasons.get(row, decision.reason) for row in np.flatnonzero(~decision.kept))


@repeatably
@given(row_lists, st.integers(1, 8))
def test_a_number_of_rows_is_per_group(rows: list[Row], number: int) -> None:
    decision = Top(by="s", rows=number, per="language").decide(table(rows))
    assert decision.kept.tolist() == slow_kept(rows, lambda size: min(number, size), True)


@repeatably
@given(row_lists, st.randoms(use_true_random=False))
def test_what_is_kept_and_why_does_not_depend_on_the_order_of_rows(rows: list[Row], random: Any) -> None:
    step, straight = Top(by="s", fraction=0.5, per="language"), table(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = straight.take(pa.array(order, pa.int64()))
    one, other = step.decide(straight), step.decide(shuffled)
    assert kept_keys(one, straight) == kept_keys(other, shuffled)
    assert {n: one.row_reasons.get(n) for n in order} == {n: other.row_reasons.get(i) for i, n in enumerate(order)}


@pytest.mark.parametrize(
    ("written", "rows", "kept"),
    [(0.29, 100, 29), (0.57, 100, 57), (0.3, 10, 3), (1, 7, 7), ("0.1", 9, 0), (0.07, 100, 7)],
)
def test_a_fraction_is_the_decimal_that_was_written(written: Any, rows: int, kept: int) -> None:
    decision = Top(by="s", fraction=written).decide(table([(n / 7, None) for n in range(rows)]))
    assert int(decision.kept.sum()) == kept


def test_ties_go_to_the_lower_key() -> None:
    rows = table([(0.5, None)] * 4, ["d", "b", "a", "c"])
    assert kept_keys(Top(by="s", rows=2).decide(rows), rows) == {"a", "b"}


def test_reasons_name_the_amount_the_rows_and_the_threshold() -> None:
    rows = table([(0.1, "en"), (0.2, "en"), (0.2713, None), (math.nan, "en"), (None, "de")])
    decision = Top(by="clip_score", fraction=0.5).decide(rows)
    assert decision.reason == "clip_score ranks below the best 50 % of 3 rows (threshold 0.2713; ties by key)"
    assert decision.row_reasons == dict.fromkeys((3, 4), "clip_score is NULL or NaN, so the row has no rank")
    per = Top(by="clip_score", rows=1, per="language", order="asc").decide(rows)
    assert per.row_reasons[1] == (
        "clip_score ranks above the lowest 1 of 2 rows where language is 'en' (threshold 0.1; ties by key)"
    )


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, 1, None, 2], pa.int64()),
        pa.array([Decimal("3.5"), Decimal("1.5"), None, Decimal("2.5")], pa.decimal128(9, 2)),
        pa.array([3, 1, None, 2], pa.timestamp("us")),
        pa.array([2**64 - 1, 0, None, 2**63], pa.uint64()),
    ],
    ids=lambda values: str(values.type),
)
def test_any_type_that_has_a_size_can_be_ranked(values: pa.Array) -> None:
    step = Top(by="s", fraction=1.0 / 3)
    step.check({"by_0": values.type})
    rows = pa.table({"key": ["a", "b", "c", "d"], "by_0": values})
    assert kept_keys(Top(by="s", rows=2).decide(rows), rows) == {"a", "d"}


@repeatably
@given(
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.integers(-(10**37), 10**37)), max_size=25),
    st.integers(1, 10),
    st.sampled_from(["desc", "asc"]),
)
def test_decimals_of_any_size_are_ranked_exactly(values: list[int | None], number: int, order: Any) -> None:
    written = [None if value is None else Decimal(value) for value in values]
    keys = pa.array([f"{n:032x}" for n in range(len(values))], pa.string())
    rows = pa.table({"key": keys, "by_0": pa.array(written, pa.decimal128(38, 0))})
    valued = [n for n, value in enumerate(values) if value is not None]
    best = sorted(valued, key=lambda n: (-values[n] if order == "desc" else values[n], n))  # type: ignore[operator]
    decision = Top(by="s", rows=number, order=order).decide(rows)
    assert np.flatnonzero(decision.kept).tolist() == sorted(best[:number])


@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("per", [None, "language"])
def test_many_rows_in_many_blocks_are_cut_where_a_full_sort_cuts_them(
    per: str | None, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "_BLOCK_ROWS", 70_000)
    random = np.random.default_rng(0)
    value_N = np.where(random.random(300_000) < 0.7, random.normal(size=300_000), 0.5).astype(np.float32)
    group_N = random.integers(0, 5, 300_000) if per else np.zeros(300_000, np.int64)
    key_N = random.permutation(300_000)
    columns = {"key": pa.array(np.char.mod("%032x", key_N)), "by_0": value_N, "per_0": group_N}
    rows = pa.concat_tables([pa.table(columns).slice(start, 9_000) for start in range(0, 300_000, 9_000)])
    decision = Top(by="s", fraction=0.4, per=per, order=order).decide(rows)
    sorted_N = np.lexsort((key_N, -value_N if order == "desc" else value_N, group_N))
    expected_N = np.zeros(300_000, np.bool_)
    for group in np.unique(group_N):
        own = sorted_N[group_N[sorted_N] == group]
        expected_N[own[: 4 * len(own) // 10]] = True
    assert np.array_equal(decision.kept, expected_N)


def test_no_rows_and_no_values_keep_nothing() -> None:
    for rows in ([], [(None, "en"), (math.nan, None)]):
        for per in (None, "language"):
            decision = Top(by="s", fraction=0.5, per=per).decide(table(rows))
            assert decision.kept.tolist() == [False] * len(rows)
            assert "NULL" in decision.reason


def test_values_without_a_size_are_refused_by_name_and_type() -> None:
    with pytest.raises(InputError, match="'caption' is of type string"):
        Top(by="caption", rows=1).check({"by_0": pa.string()})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"fraction": 0.3, "rows": 3},
        *({"fraction": fraction} for fraction in (0, 1.1, -0.3, math.nan, True, "a third")),
        {"rows": 0},
        {"rows": 1, "order": "up"},
        {"rows": 1, "mark": "no name"},
        {"rows": 1, "cosine": 1},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Top(by="clip_score", **parameters)


def test_inputs_are_the_sql_of_the_value_and_the_quoted_group() -> None:
    assert Top(by="a + b", rows=1, per='my "lang"').inputs == {"by_0": "a + b", "per_0": '"my ""lang"""'}
    assert Top(by="a", rows=1).inputs == {"by_0": "a"}


@pytest.mark.parametrize(
    ("term", "expression", "descending"),
    [
        ("width_px * height_px desc", "(width_px * height_px)", True),
        ("clip_score", "clip_score", False),
        ('"my desc" ASC NULLS LAST', '"my desc"', False),
        ("abs(ratio - 0.5)", "abs((ratio - 0.5))", False),
        ("coalesce(caption, 'a desc') desc -- why", "COALESCE(caption, 'a desc')", True),
        ("CASE WHEN a THEN 1 ELSE 2 END desc", "CASE  WHEN (a) THEN (1) ELSE 2 END", True),
    ],
)
def test_an_order_term_is_split_into_expression_and_direction(term: str, expression: str, descending: bool) -> None:
    assert parse_order_term(term) == OrderTerm(expression, descending)


@pytest.mark.parametrize(
    "term", ["", "a desc, b", "a limit 3", "a nulls first", "1", "'a'", "a; b", "a) from t; select (1"]
)
def test_what_is_not_one_order_term_is_refused_with_its_text(term: str) -> None:
    with pytest.raises(ValueError, match=r"order term|nulls first|same for every row") as refusal:
        parse_order_term(term)
    assert repr(term) in str(refusal.value)


@repeatably
@given(st.lists(st.tuples(scores, scores), max_size=20), st.booleans(), st.booleans())
def test_rows_are_ordered_by_terms_then_key_with_null_and_nan_last(
    rows: list[tuple[float | None, float | None]], first_down: bool, second_down: bool
) -> None:
    columns = {f"order_{n}": pa.array([row[n] for row in rows], pa.float64()) for n in range(2)}
    keys = pa.array([f"{n * 7 % 32:02x}" for n in range(len(rows))], pa.string())
    found = positions_in_order(pa.table({"key": keys, **columns}), [("order_0", first_down), ("order_1", second_down)])

    def place(value: float | None, down: bool) -> tuple[bool, float]:
        missing = value is None or math.isnan(value)
        return (missing, 0.0 if missing else (-value if down else value))  # type: ignore[operator]

    expected = sorted(
        range(len(rows)),
        key=lambda n: (place(rows[n][0], first_down), place(rows[n][1], second_down), keys[n].as_py()),
    )
    assert found.tolist() == expected
