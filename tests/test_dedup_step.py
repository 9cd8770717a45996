"""`dedup` over tables: equality and radius, who survives, other sets, refusals."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.selection.dedup import Dedup
from curation.selection.step import Decision
from schemas.errors import InputError

repeatably = settings(deadline=None, derandomize=True, max_examples=15)
codes = st.one_of(st.none(), st.integers(0, 127))
scores = st.sampled_from([None, float("nan"), 0.0, 0.5, 1.0])
row_lists = st.lists(st.tuples(codes, scores), max_size=25)


def key(n: int) -> str:
    """Keys whose order is not the rows' order."""
    return f"{n * 37 % 64:032x}"


def table(rows: list[tuple[int | None, float | None]]) -> pa.Table:
    return pa.table(
        {
            "key": pa.array([key(n) for n in range(len(rows))], pa.string()),
            "by_0": pa.array([row[0] for row in rows], pa.uint64()),
            "order_0": pa.array([row[1] for row in rows], pa.float64()),
        }
    )


def other_set(values: list[int | None], keys: list[str | None], file: str = "other.parquet", **types: Any) -> pa.Table:
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "file": pa.array([file] * len(values), pa.string()),
            "row": pa.array(range(len(values)), pa.int64()),
            "by_0": pa.array(values, types.get("by_0", pa.uint64())),
        }
    )


def fates(decision: Decision, rows: pa.Table) -> dict[str, str | None]:
    """What each dropped key gave way to."""
    keys = rows["key"].to_pylist()
    assert sorted(decision.duplicate_of) == np.flatnonzero(~decision.kept).tolist()
    return {keys[row]: leader for row, leader in decision.duplicate_of.items()}


def step(**parameters: Any) -> Dedup:
    return Dedup.model_validate({"by": "phash"} | parameters)


@repeatably
@given(row_lists)
def test_of_equal_rows_the_preferred_one_is_kept_and_named(rows: list[tuple[int | None, float | None]]) -> None:
    found = fates(step(prefer=["score desc"]).decide(table(rows)), table(rows))

    def rank(n: int) -> tuple[bool, float, str]:
        score = rows[n][1]
        missing = score is None or score != score
        return (missing, 0.0 if missing else -score, key(n))  # type: ignore[operator]

    expected = {}
    for n, (code, _) in enumerate(rows):
        first = min((o for o in range(len(rows)) if rows[o][0] == code), key=rank)
        if code is not None and first != n:
            expected[key(n)] = key(first)
    assert found == expected


@pytest.mark.parametrize(
    "parameters",
    [{}, {"within": 0}, {"within": 2}, {"within": 2, "survivors": "earlier"}, {"within": 2, "survivors": "greedy"}],
    ids=str,
)
@repeatably
@given(row_lists, st.randoms(use_true_random=False))
def test_fates_do_not_depend_on_the_order_of_rows_and_null_passes(
    parameters: dict[str, Any], rows: list[tuple[int | None, float | None]], random: Any
) -> None:
    straight, order = table(rows), list(range(len(rows)))
    random.shuffle(order)
    shuffled = straight.take(pa.array(order, pa.int64()))
    dedup = step(prefer=["score desc"], **parameters)
    decision = dedup.decide(straight)
    assert fates(decision, straight) == fates(dedup.decide(shuffled), shuffled)
    assert decision.kept[[row[0] is None for row in rows]].all()
    kept = straight.filter(pa.array(decision.kept))
    assert dedup.decide(kept).kept.all()
    assert set(decision.duplicate_of.values()) <= set(kept["key"].to_pylist())


@repeatably
@given(row_lists)
def test_within_0_is_equality(rows: list[tuple[int | None, float | None]]) -> None:
    equal = fates(step().decide(table(rows)), table(rows))
    for survivors in ("components", "earlier", "greedy"):
        assert fates(step(within=0, survivors=survivors).decide(table(rows)), table(rows)) == equal


@repeatably
@given(row_lists)
def test_the_rules_keep_ever_more(rows: list[tuple[int | None, float | None]]) -> None:
    components, earlier, greedy = (
        step(within=2, survivors=rule).decide(table(rows)).kept for rule in ("components", "earlier", "greedy")
    )
    assert (components <= earlier).all()
    assert (earlier <= greedy).all()


@pytest.mark.parametrize(
    ("survivors", "expected"),
    [("components", {1: 0, 2: 0, 3: 0}), ("earlier", {1: 0, 2: 0, 3: 0}), ("greedy", {1: 0, 3: 2})],
)
def test_a_chain_is_decided_as_each_rule_says(survivors: str, expected: dict[int, int]) -> None:
    chain = pa.table({"key": ["a", "b", "c", "d"], "by_0": pa.array([0, 0b1, 0b11, 0b111], pa.uint64())})
    decision = step(within=1, survivors=survivors).decide(chain)
    names = "abcd"
    assert decision.duplicate_of == {row: names[leader] for row, leader in expected.items()}


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", "b", "a", None, None]),
        pa.array([b"a", b"b", b"a", None, None]),
        pa.array([1.5, 2.5, 1.5, None, None], pa.float32()),
        pa.array([-0.0, 1.0, 0.0, None, None]),
        pa.array([float("nan"), 1.0, float("nan"), None, None]),
        pa.array([[1.0, 2.0], [1.0], [1.0, 2.0], None, None], pa.list_(pa.float32())),
        pa.array([2**64 - 1, 0, 2**64 - 1, None, None], pa.uint64()),
    ],
    ids=lambda values: f"{values.type} {values[0]}",
)
def test_values_of_any_type_are_compared_for_equality(values: pa.Array) -> None:
    rows = pa.table({"key": ["k1", "k2", "k0", "k4", "k3"], "by_0": values})
    decision = step().decide(rows)
    assert decision.duplicate_of == {0: "k0"}
    assert decision.kept.tolist() == [False, True, True, True, True]


def test_of_several_columns_all_must_agree_and_null_in_any_passes() -> None:
    rows = pa.table(
        {
            "key": ["a", "b", "c", "d", "e"],
            "by_0": ["x", "x", "x", "x", "x"],
            "by_1": pa.array([1, 2, 1, None, None]),
        }
    )
    decision = Dedup(by=("caption", "phash")).decide(rows)
    assert decision.duplicate_of == {2: "a"}
    assert decision.reason == "caption, phash equal to a kept row that ranks before it"


def test_codes_with_the_highest_bit_keep_it_beside_null() -> None:
    rows = table([(2**64 - 1, None), (None, None), (2**64 - 2, None), (2**63, None)])
    assert step(within=1).decide(rows).duplicate_of == {2: key(0)}


def test_no_rows_are_decided_too() -> None:
    empty = table([])
    against = step(within=4, against="x"), step(against="x")
    assert [len(dedup.decide(empty).kept) for dedup in (step(), step(within=4))] == [0, 0]
    assert [len(dedup.decide(empty, [other_set([1], ["a"])]).kept) for dedup in against] == [0, 0]
    assert [dedup.decide(table([(1, None)]), [other_set([], [])]).kept.tolist() for dedup in against] == [[True]] * 2


def test_against_drops_the_rows_that_have_a_neighbour_there_and_is_not_transitive() -> None:
    rows = table([(0b0, None), (0b1, None), (0b11, None), (None, None), (0b1, None)])
    other = other_set([0b0, None], ["theirs", "null"])
    assert fates(step(against="o", within=1).decide(rows, [other]), rows) == dict.fromkeys(
        (key(0), key(1), key(4)), "theirs"
    )
    assert fates(step(against="o").decide(rows, [other]), rows) == {key(0): "theirs"}


def test_of_several_neighbours_the_nearest_is_named_then_the_lowest_key_then_file_and_row() -> None:
    rows = table([(0b0, None)])
    nearest = other_set([0b11, 0b1, 0b10], ["a", "c", "b"])
    nameless = [other_set([0b1, 0b1], [None, None], "b.parquet"), other_set([0b111, 0b1, 0b1], [None] * 3, "a.parquet")]
    dedup = step(against=["o", "p"], within=2)
    assert dedup.decide(rows, [nearest, *nameless]).duplicate_of == {0: "b"}
    for sets in (nameless, nameless[::-1]):
        decision = dedup.decide(rows, sets)
        assert decision.duplicate_of == {0: None}
        assert decision.row_reasons == {0: "phash within 2 bits of a.parquet row 1"}
    equal = step(against="o").decide(table([(0b1, None)]), nameless)
    assert equal.row_reasons == {0: "phash equal to a.parquet row 1"}


@repeatably
@given(row_lists, st.lists(codes, max_size=10), st.integers(0, 3))
def test_against_names_what_comparing_all_with_all_names(
    rows: list[tuple[int | None, float | None]], others: list[int | None], distance: int
) -> None:
    keys = [key(n + 30) for n in range(len(others))]
    found = fates(step(against="o", within=distance).decide(table(rows), [other_set(others, list(keys))]), table(rows))
    expected = {}
    for n, (code, _) in enumerate(rows):
        near = [
            ((code ^ other).bit_count(), name)
            for other, name in zip(others, keys, strict=True)
            if code is not None and other is not None and (code ^ other).bit_count() <= distance
        ]
        if near:
            expected[key(n)] = min(near)[1]
    assert found == expected


def test_an_other_set_of_another_integer_type_is_compared_by_value() -> None:
    other = other_set([5], ["theirs"], by_0=pa.int64())
    assert step(against="o", within=0).decide(table([(5, None)]), [other]).duplicate_of == {0: "theirs"}


@pytest.mark.parametrize(("values", "type_"), [([-1], pa.int64()), (["5"], pa.string()), ([5.0], pa.float64())])
def test_an_other_set_whose_values_do_not_fit_is_refused_by_name_and_type(values: list[Any], type_: Any) -> None:
    with pytest.raises(InputError, match=rf"column 'phash' is of type {type_} there and of type uint64"):
        step(against="o", within=4).decide(table([(5, None)]), [other_set(values, ["a"], by_0=type_)])


def test_a_radius_on_what_is_no_hash_is_refused_by_name_and_type() -> None:
    with pytest.raises(InputError, match="'caption' is of type string"):
        Dedup(by="caption", within=4).check({"by_0": pa.string()})
    step(within=4).check({"by_0": pa.uint64()})
    Dedup(by="caption").check({"by_0": pa.string()})


def test_a_radius_at_which_chance_neighbours_are_expected_is_refused_with_the_safe_one() -> None:
    with pytest.raises(
        InputError, match=r"expects 6\.3 neighbours by chance .* largest safe radius is 4; 'force: true'"
    ):
        step(within=8).refuse_chance_neighbours(5_000_000_000)
    step(within=8, force=True).refuse_chance_neighbours(5_000_000_000)
    step(within=8).refuse_chance_neighbours(1_000_000)
    step().refuse_chance_neighbours(5_000_000_000)


def test_inputs_have_stable_names_and_quote_columns() -> None:
    dedup = Dedup(by=("phash", 'a "b"'), prefer=("width_px * height_px desc", "clip_score"))
    assert dedup.inputs == {
        "by_0": '"phash"',
        "by_1": '"a ""b"""',
        "order_0": "(width_px * height_px)",
        "order_1": "clip_score",
    }
    assert dedup.against_columns == {}
    assert step(against="x.parquet").against_columns == {"by_0": "phash"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"by": []},
        {"by": ["phash", "phash"]},
        {"by": ["phash", "caption"], "within": 4},
        {"within": -1},
        {"within": 32},
        {"survivors": "all"},
        {"prefer": ["clip_score desc, key"]},
        {"prefer": ["clip_score nulls first"]},
        {"against": "x", "prefer": ["clip_score"]},
        {"against": "x", "survivors": "greedy"},
        {"cosine": 0.9, "within": 4},
        {"by": ["a", "b"], "jaccard": 0.8},
        {"cosine": 0},
        {"jaccard": 1.1},
        {"recall": 0.99},
        {"within": 4, "recall": 1},
        {"quality": "pdq_quality"},
        {"mark": ""},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        step(**parameters)
