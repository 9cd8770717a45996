"""`sample`: exact numbers of rows, the same for any order, nested in one another."""

import hashlib
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import run_job, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.selection.sample import Sample
from schemas.manifest import read_manifest

repeatably = settings(deadline=None, derandomize=True, max_examples=25)


def keys(count: int) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(count)]


def drawn(step: Sample, of: list[str]) -> set[str]:
    decision = step.decide(pa.table({"key": pa.array(of, pa.string())}))
    return {key for key, is_kept in zip(of, decision.kept.tolist(), strict=True) if is_kept}


@repeatably
@given(st.integers(0, 60), st.integers(1, 70), st.integers(-3, 10**6))
def test_the_rows_with_the_lowest_sha256_of_seed_and_key_are_kept(count: int, rows: int, seed: int) -> None:
    order = sorted(keys(count), key=lambda key: hashlib.sha256(f"{seed}{key}".encode()).digest())
    assert drawn(Sample(rows=rows, seed=seed), keys(count)) == set(order[:rows])


@repeatably
@given(st.integers(0, 60), st.decimals("0.01", "1", places=2))
def test_a_fraction_keeps_exactly_its_floor(count: int, fraction: Decimal) -> None:
    assert len(drawn(Sample(fraction=fraction), keys(count))) == math.floor(Fraction(fraction) * count)


@pytest.mark.parametrize(("written", "rows", "kept"), [(0.29, 100, 29), (0.57, 100, 57), (1, 7, 7), ("0.1", 9, 0)])
def test_a_fraction_is_the_decimal_that_was_written(written: Any, rows: int, kept: int) -> None:
    assert len(drawn(Sample(fraction=written), keys(rows))) == kept


@repeatably
@given(st.permutations(keys(40)))
def test_the_order_of_rows_decides_nothing(shuffled: list[str]) -> None:
    assert drawn(Sample(rows=10), shuffled) == drawn(Sample(rows=10), keys(40))


def test_a_smaller_sample_lies_within_a_larger_one_and_another_seed_draws_others() -> None:
    for smaller, larger in zip(range(1, 40, 3), range(4, 44, 3), strict=False):
        assert drawn(Sample(rows=smaller), keys(40)) < drawn(Sample(rows=larger), keys(40))
    assert drawn(Sample(rows=10), keys(40)) != drawn(Sample(rows=10, seed=1), keys(40))


def test_the_reason_names_the_numbers_and_the_seed() -> None:
    decision = Sample(fraction=0.5, seed=7).decide(pa.table({"key": keys(2_001)}))
    assert decision.reason == "not among the 1,000 of 2,001 rows drawn at random (seed 7)"
    assert not decision.row_reasons
    assert decision.kept.dtype == np.bool_


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rows": 3, "fraction": 0.3},
        {"rows": 0},
        *({"fraction": fraction} for fraction in (0, 1.1, -0.3, math.nan, True, "a third")),
        {"rows": 1, "seed": "x"},
        {"rows": 1, "mark": "no name"},
        {"rows": 1, "by": "clip_score"},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sample(**parameters)


def test_a_run_keeps_the_sample_whatever_its_parts_and_a_mark_drops_nothing(tmp_path: Any) -> None:
    rows = [{"url": f"http://127.0.0.1/{n}.jpg", "caption": f"picture {n}"} for n in range(30)]
    steps = [{"sample": {"rows": 20, "mark": "drawn"}}, {"keep": "drawn"}, {"sample": {"fraction": 0.25, "seed": 3}}]
    versions = set()
    for rows_per_part in (4, 100):
        table = write_table(tmp_path / "pairs.parquet", rows)
        source = {"table": table, "rows_per_part": rows_per_part}
        store = str(tmp_path / str(rows_per_part))
        result = run_job(
            {"name": "s", "store": store, "source": source, "steps": steps, "shards": {"format": "parquet"}}
        )
        assert [entry["rows_out"] for entry in result.funnel] == [30, 30, 20, 5]
        assert read_manifest(result.manifest).rows == 5
        versions.add(result.version)
    assert len(versions) == 1
