"""`balance`: MetaCLIP's probabilities, decided by the key: what is rare stays, what is frequent is thinned."""

import hashlib
import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import run_job, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.plan import build_plan
from curation.selection.balance import Balance, kept_below
from curation.selection.step import Decision
from schemas.errors import InputError
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec

repeatably = settings(deadline=None, derandomize=True, max_examples=40)
entries = st.sampled_from([None, "", "a", "b", "c", "d'", "é"])
lists = st.one_of(st.none(), st.lists(entries, max_size=4))
NOTHING = "terms has no entry to balance by"


def key(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()[:32]


def table(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"key": [key(n) for n in range(len(values))], "by_0": pa.array(values, kind)})


def balanced(values: list[Any], cap: int, seed: int = 0, kind: pa.DataType | None = None) -> Decision:
    return Balance(by="terms", cap=cap, seed=seed).decide(table(values, kind or pa.list_(pa.string())))


def probabilities(values: list[list[Any] | None], cap: int) -> list[Fraction]:
    """By the definition, with an entry once per row."""
    sets = [set(value or ()) - {None} for value in values]
    count = Counter(entry for entries in sets for entry in entries)
    return [1 - math.prod(1 - min(Fraction(1), Fraction(cap, count[e])) for e in entries) for entries in sets]


def number(n: int, seed: int) -> int:
    return int(hashlib.sha256(f"balance{seed} {key(n)}".encode()).hexdigest()[:16], 16)


@repeatably
@given(st.lists(lists, max_size=40), st.integers(1, 12), st.integers(-1, 3))
def test_a_row_is_kept_if_its_number_lies_below_its_probability(
    values: list[list[Any] | None], cap: int, seed: int
) -> None:
    decision = balanced(values, cap, seed)
    expected = [number(n, seed) < math.floor(p * 2**64) for n, p in enumerate(probabilities(values, cap))]
    assert decision.kept.tolist() == expected
    without = {n for n, value in enumerate(values) if not set(value or ()) - {None}}
    assert decision.row_reasons == dict.fromkeys(without, NOTHING)
    assert not decision.kept[list(without)].any()


@repeatably
@given(st.lists(entries, max_size=40), st.integers(1, 6))
def test_a_scalar_is_a_list_of_one(values: list[str | None], cap: int) -> None:
    scalar = balanced(values, cap, kind=pa.string())
    as_lists = balanced([None if value is None else [value] for value in values], cap)
    assert scalar.kept.tolist() == as_lists.kept.tolist()
    assert scalar.row_reasons == as_lists.row_reasons


@repeatably
@given(st.lists(lists, max_size=30), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_entries_decides_nothing(
    values: list[list[Any] | None], cap: int, random: Any
) -> None:
    straight = table(values, pa.list_(pa.string()))
    order = list(range(len(values)))
    random.shuffle(order)
    turned = [None if value is None else [*reversed(value), *value] for value in values]
    shuffled = table(turned, pa.list_(pa.string())).take(pa.array(order, pa.int64()))
    step = Balance(by="terms", cap=cap)
    assert step.decide(shuffled).kept.tolist() == step.decide(straight).kept[order].tolist()


def test_a_larger_cap_keeps_every_row_that_a_smaller_one_keeps() -> None:
    random = np.random.default_rng(0)
    values = [random.zipf(1.2, 3).clip(max=50).tolist() for _ in range(2_000)]
    kept = [balanced(values, cap, kind=pa.list_(pa.int64())).kept for cap in (1, 5, 20, 100, 1_000, 10_000)]
    assert all((smaller <= larger).all() for smaller, larger in itertools.pairwise(kept))
    assert kept[0].sum() < kept[2].sum() < 1_000
    assert kept[-1].all()


def test_frequent_values_are_thinned_to_about_the_cap_and_rare_ones_stay() -> None:
    values = ["often"] * 20_000 + ["seldom"] * 300 + ["at the cap"] * 1_000
    for seed in range(3):
        kept = np.array(values)[balanced(values, 1_000, seed, pa.string()).kept].tolist()
        assert Counter(kept)["seldom"] == 300
        assert Counter(kept)["at the cap"] == 1_000
        assert abs(Counter(kept)["often"] - 1_000) < 5 * math.sqrt(1_000)


def test_a_row_with_several_frequent_entries_has_a_chance_for_each() -> None:
    values = [["a", "b"]] * 4_000
    expected = 4_000 * (1 - (1 - 0.25) ** 2)
    assert abs(balanced(values, 1_000).kept.sum() - expected) < 5 * math.sqrt(expected)
    # The head's rows live on with a tail entry beside it.
    assert balanced([*values, ["a", "rare"]], 1_000).kept[-1]


def test_what_is_drawn_hangs_on_the_seed_and_not_on_what_sample_draws() -> None:
    values = ["a"] * 1_000
    first, other = balanced(values, 300, 0, pa.string()).kept, balanced(values, 300, 1, pa.string()).kept
    assert 40 < (first & other).sum() < 160
    by_sample = sorted(range(1_000), key=lambda n: hashlib.sha256(f"0{key(n)}".encode()).digest())[:300]
    assert 40 < first[by_sample].sum() < 160


@repeatably
@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=200), st.integers(1, 2**41))
def test_probabilities_are_exact_however_many_and_frequent_the_entries(counts: list[int], cap: int) -> None:
    dropped = math.prod(1 - min(Fraction(1), Fraction(cap, count)) for count in counts)
    assert kept_below(counts, cap) == math.floor((1 - dropped) * 2**64)


def test_reasons_name_the_column_the_cap_and_the_seed() -> None:
    assert balanced([["a"]] * 3_000, 2_000).reason == (
        "not drawn: each entry of terms is in more than 2,000 rows, which are thinned towards that (seed 0)"
    )


def test_no_rows_and_no_entries_are_decided_too() -> None:
    assert balanced([], 1).kept.tolist() == []
    assert balanced([None, []], 1).row_reasons == {0: NOTHING, 1: NOTHING}


@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_(), pa.string(), pa.large_string(), pa.uint64()], ids=str)
def test_texts_integers_booleans_and_lists_of_them_are_counted(kind: pa.DataType) -> None:
    for whole in (kind, pa.list_(kind), pa.large_list(kind)):
        Balance(by="terms", cap=1).check({"by_0": whole})
    values = pa.array([1, 1, 0, None], pa.int8()).cast(kind)
    lists_of_one = pa.LargeListArray.from_arrays(pa.array([0, 1, 2, 3, 4]), values)
    for column in (values, lists_of_one):
        rows = pa.table({"key": [key(n) for n in range(4)], "by_0": column})
        assert Balance(by="terms", cap=2).decide(rows).kept.tolist() == [True, True, True, False]


@pytest.mark.parametrize("kind", [pa.float32(), pa.list_(pa.float32()), pa.list_(pa.list_(pa.string()))], ids=str)
def test_what_is_not_counted_by_value_is_refused_by_name_and_type(kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"by: 'clip_score' is of type .*; balance counts texts"):
        Balance(by="clip_score", cap=1).check({"by_0": kind})


@pytest.mark.parametrize(
    "parameters", [{}, {"cap": 0}, {"cap": 1.5}, {"cap": 1, "t": 1}, {"cap": 1, "mark": ""}], ids=str
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Balance(by="terms", **parameters)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"by": "matched_term", "cap": 1}, 'steps[1] balance: Referenced column "matched_term" not found. Candidates:'),
        ({"by": "score", "cap": 1}, "steps[1] balance: by: 'score' is of type float; balance counts texts, integers"),
        ({"by": "caption"}, "steps[1] balance: cap: is missing"),
        ({"by": "caption", "cap": 1, "mark": "score"}, "adds column 'score', which the source has already"),
    ],
    ids=["no such column", "no such type", "no cap", "a name that is taken"],
)
def test_what_cannot_be_balanced_is_refused_before_anything_runs(
    step: dict[str, Any], said: str, tmp_path: Any
) -> None:
    (tmp_path / "terms.txt").write_text("dog\n")
    steps = [{"match_terms": {"terms": str(tmp_path / "terms.txt")}}, {"balance": step}]
    spec = CurationSpec.model_validate({"name": "x", "source": {"table": "x.parquet"}, "steps": steps})
    with pytest.raises(InputError) as refusal:
        build_plan(spec, {"score": pa.float32()}, captured=False)
    assert said in str(refusal.value)


def test_a_run_balances_by_matched_terms_whatever_its_parts(tmp_path: Any) -> None:
    captions = [f"a dog {n}" for n in range(60)] + [f"a dog and a cat {n}" for n in range(6)] + ["no term", None]
    rows = [{"url": f"http://127.0.0.1/{n}.jpg", "caption": text} for n, text in enumerate(captions)]
    (tmp_path / "terms.txt").write_text("dog\ncat\n")
    steps = [
        {"match_terms": {"terms": str(tmp_path / "terms.txt")}},
        {"balance": {"by": "matched_terms", "cap": 8, "mark": "drawn"}},
        {"balance": {"by": "matched_terms", "cap": 8}},
        {"keep": "drawn"},
    ]
    versions = set()
    for rows_per_part in (7, 100):
        source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": rows_per_part}
        spec = {"name": "s", "source": source, "steps": steps, "shards": {"format": "parquet"}}
        result = run_job(spec | {"store": str(tmp_path / str(rows_per_part))})
        outs = [entry["rows_out"] for entry in result.funnel]
        assert outs[:3] == [68, 68, 68]
        assert 6 < outs[3] == outs[4] < 30
        versions.add((result.version, read_manifest(result.manifest).rows))
    assert len(versions) == 1
