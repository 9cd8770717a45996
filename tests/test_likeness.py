"""`dedup` by likeness over tables: bits of 256, cosine, words; pairs that are kept; what the manifest is told."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.join import pairs_of
from curation.selection.dedup import Dedup
from curation.selection.step import Desk
from curation.storage.store import Store
from schemas import columns as c
from schemas.columns import Column
from schemas.errors import InputError, RunError

repeatably = settings(deadline=None, derandomize=True, max_examples=20)


def key(n: int) -> str:
    """Keys whose order is not the rows' order."""
    return f"{n * 37 % 64:032x}"


def table(values: Any, kind: pa.DataType, **more: Any) -> pa.Table:
    keys = pa.array([key(n) for n in range(len(values))], pa.string())
    return pa.table({"key": keys, "by_0": pa.array(values, kind), **more})


def other(values: Any, kind: pa.DataType) -> pa.Table:
    count = len(values)
    names = {"key": [f"other {n}" for n in range(count)], "file": ["o.parquet"] * count, "row": range(count)}
    return pa.table(names | {"by_0": pa.array(values, kind)})


def stored(vectors: Any) -> list[bytes | None]:
    return [None if vector is None else np.asarray(vector, np.float16).tobytes() for vector in vectors]


def leaders(decision: Any, rows: pa.Table) -> dict[int, int]:
    """Which row each dropped row gave way to."""
    row_of = {name: row for row, name in enumerate(rows["key"].to_pylist())}
    return {row: row_of[name] for row, name in decision.duplicate_of.items()}


def expected(near: np.ndarray, keys: list[str], rule: str) -> list[bool]:
    """Who survives, by the definitions of the three rules over all pairs."""
    order = sorted(range(len(keys)), key=lambda row: keys[row])
    kept: dict[int, bool] = {}
    component = list(range(len(keys)))
    for a in range(len(keys)):
        for b in range(a):
            if near[a, b]:
                component = [component[b] if mark == component[a] else mark for mark in component]
    for place, row in enumerate(order):
        before = order[:place]
        if rule == "components":
            kept[row] = not any(component[row] == component[one] for one in before)
        elif rule == "earlier":
            kept[row] = not any(near[row, one] for one in before)
        else:
            kept[row] = not any(near[row, one] and kept[one] for one in before)
    return [kept[row] for row in range(len(keys))]


RULES = ("components", "earlier", "greedy")
words = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=4).map(" ".join)
vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)


@repeatably
@given(st.lists(st.one_of(st.none(), words), max_size=12), st.sampled_from(["0.5", "0.6", "1"]))
def test_words_are_compared_as_the_definition_says(texts: list[str | None], least: str) -> None:
    rows = table(texts, pa.string())
    sets = [set((text or "").split()) for text in texts]
    near = np.array(
        [[bool(a and b) and Fraction(len(a & b), len(a | b)) >= Fraction(least) for b in sets] for a in sets], bool
    ).reshape(len(texts), len(texts))
    for rule in RULES:
        step = Dedup(by="caption", jaccard=float(least), survivors=rule)
        assert step.decide(rows).kept.tolist() == expected(near, rows["key"].to_pylist(), rule)


@repeatably
@given(st.lists(st.one_of(st.none(), vectors), max_size=12), st.sampled_from(["0.6", "0.8", "1"]))
def test_directions_are_compared_as_the_definition_says(found: list[list[int] | None], least: str) -> None:
    rows = table(stored(found), pa.binary(6))
    whole = [vector or [0, 0, 0] for vector in found]

    def near_enough(a: list[int], b: list[int]) -> bool:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        lengths = sum(x * x for x in a) * sum(y * y for y in b)
        return dot > 0 and dot**2 >= Fraction(least) ** 2 * lengths

    near = np.array([[near_enough(a, b) for b in whole] for a in whole], bool).reshape(len(whole), len(whole))
    for rule in RULES:
        step = Dedup(by="clip_image", cosine=float(least), survivors=rule)
        assert step.decide(rows).kept.tolist() == expected(near, rows["key"].to_pylist(), rule)


@repeatably
@given(st.lists(st.one_of(st.none(), st.integers(0, 31)), max_size=12), st.integers(0, 3))
def test_codes_of_256_bits_are_compared_as_the_definition_says(found: list[int | None], within: int) -> None:
    """The bits lie in all four words of a code."""
    spread = [None if bits is None else sum((bits >> n & 1) << (60 * n) for n in range(5)) for bits in found]
    rows = table([None if code is None else code.to_bytes(32, "big") for code in spread], pa.binary())
    near = np.array(
        [[a is not None and b is not None and (a ^ b).bit_count() <= within for b in found] for a in found], bool
    ).reshape(len(found), len(found))
    for rule in RULES:
        step = Dedup(by="pdq", within=within, survivors=rule)
        assert step.decide(rows).kept.tolist() == expected(near, rows["key"].to_pylist(), rule)


def test_of_another_set_the_nearest_is_named() -> None:
    rows = table(["a red bus stops", "nothing alike", None], pa.string())
    others = other(["a red bus", "a red bus stops", "A RED bus, stops!"], pa.string())
    decision = Dedup(by="caption", jaccard=0.5, against="o").decide(rows, [others])
    assert decision.duplicate_of == {0: "other 1"}
    assert decision.kept.tolist() == [False, True, True]
    directions = table(stored([[1, 0], [0, 1], None, [0, 0]]), pa.binary(4))
    theirs = other([[0.5, 0.5], [3, 0.5]], pa.list_(pa.float32()))
    decision = Dedup(by="clip_image", cosine=0.7, against="o").decide(directions, [theirs])
    assert decision.duplicate_of == {0: "other 1", 1: "other 0"}
    assert decision.reason == "clip_image with a cosine of 0.7 or more to a row of the other set"


def test_pairs_that_were_found_serve_a_stricter_threshold_another_rule_and_another_order(tmp_path: Path) -> None:
    searches: list[int] = []

    def counted(jobs: Any, values: Any) -> Any:
        searches.append(len(jobs))
        return pairs_of(jobs, values)

    desk = Desk(Store.open(tmp_path), counted)
    codes = [0b0, 0b1, 0b111, 0b1111, 1 << 40]
    rows = table(codes, pa.uint64())

    def kept(**said: Any) -> list[bool]:
        step = Dedup(by="phash", **said)
        decision = step.decide(rows, (), desk)
        assert decision.kept.tolist() == step.decide(rows).kept.tolist()  # as without a store
        return decision.kept.tolist()

    wide = kept(within=3)
    assert len(searches) == 1
    assert kept(within=1) != wide
    kept(within=2, survivors="greedy")
    kept(within=3, survivors="earlier")
    shuffled = rows.take(pa.array([3, 1, 4, 0, 2]))
    Dedup(by="phash", within=3).decide(shuffled, (), desk)
    assert len(searches) == 1
    kept(within=4)  # wider: what was found does not do
    assert len(searches) == 2
    Dedup(by="phash", within=3).decide(table([*codes, 1 << 50], pa.uint64()), (), desk)
    assert len(searches) == 3


def test_flat_pictures_are_equal_to_each_other_and_near_to_none() -> None:
    flat, nearly = 1 << 63, (1 << 63) | 1
    rows = table([flat, flat, nearly, 0], pa.uint64())
    of_operator = {"phash": c.PHASH}
    decision = Dedup(by="phash", within=4).bound(of_operator).decide(rows)
    assert decision.kept.sum() == 3
    assert decision.facts["exact_only"] == 4
    of_source = {"phash": Column("phash", pa.uint64(), "from the source")}
    assert Dedup(by="phash", within=4).bound(of_source).decide(rows).kept.sum() == 1


def test_a_pdq_of_low_quality_compares_for_equality_only() -> None:
    codes = [(1 << 200).to_bytes(32, "big"), (1 << 200 | 1).to_bytes(32, "big"), (1 << 200 | 3).to_bytes(32, "big")]
    step = Dedup(by="pdq", within=4).bound({"pdq": c.PDQ, "pdq_quality": c.PDQ_QUALITY})
    assert step.inputs["quality"] == '"pdq_quality"'
    rows = table(codes, pa.binary(), quality=pa.array([100, 49, 50], pa.int16()))
    assert leaders(step.decide(rows), rows) == {2: 0}


def test_what_was_decided_is_told_in_figures() -> None:
    rows = table(["a b c", "a b c d", "x", "y", None], pa.string())
    facts = Dedup(by="caption", jaccard=0.7).decide(rows).facts
    assert facts["recall"] == 1.0
    assert facts["groups_by_size"] == {"1": 3, "2": 1}
    assert facts["largest_groups"] == [{"rows": 2, "kept": key(0)}]
    assert "one component holds 2 of 5 rows" in facts["warnings"][0]


def test_a_sampled_search_states_its_recall() -> None:
    texts = [f"{n} is a rather long text about number {n} and nothing else at all" for n in range(50)]
    decision = Dedup(by="caption", jaccard=0.6, recall=0.9).decide(table(texts, pa.string()))
    assert 0.9 <= decision.facts["recall"] < 1
    assert decision.facts["bands"] >= 1


def test_what_does_not_compare_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="jaccard: needs a text"):
        Dedup(by="phash", jaccard=0.8).check({"by_0": pa.uint64()})
    with pytest.raises(InputError, match=r"within: needs an unsigned 64-bit column or a binary one"):
        Dedup(by="caption", within=4).check({"by_0": pa.string()})
    with pytest.raises(RunError, match="32 bytes"):
        Dedup(by="pdq", within=4).decide(table([b"short", bytes(32)], pa.binary()))
    with pytest.raises(InputError, match="no embedding"):
        Dedup(by="e", cosine=0.9, against="o").check_against(other([1], pa.int64()), {"by_0": pa.binary(4)})
    with pytest.raises(RunError, match="embeddings of 2 and 3 numbers"):
        Dedup(by="e", cosine=0.9, against="o").decide(
            table(stored([[1, 2]]), pa.binary(4)), [other([[1.0, 2.0, 3.0]], pa.list_(pa.float32()))]
        )


def test_chance_neighbours_are_counted_by_the_kind_of_hash() -> None:
    Dedup(by="pdq", within=30).bound({"pdq": c.PDQ}).refuse_chance_neighbours(10**9)
    with pytest.raises(InputError, match="the largest safe radius is 6"):
        Dedup(by="phash", within=8).bound({"phash": c.PHASH}).refuse_chance_neighbours(10**8)
