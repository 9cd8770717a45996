"""The numbers in a predicate, by DuckDB's own parser."""

import pytest

from curation.analytics.report.thresholds import thresholds_in

COLUMNS = ["score", "width_px", "height_px", "language", "odd name", "a", "b"]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("score >= 0.28", ["score >= 0.28"]),
        ("SCORE > 1", ["score > 1"]),
        ("64 <= least(width_px, height_px)", ["least(width_px, height_px) >= 64"]),
        ("a between 3 and 2 * 5", ["a >= 3", "a <= 10"]),
        ("a >= 3 and (b < -0.5 or score > 1e-3)", ["a >= 3", "b < -0.5", "score > 0.001"]),
        ("a > 3::FLOAT -- at least", ["a > 3"]),
        ('"odd name" < 7', ["odd name < 7"]),
        ("a >= 3 and a >= 3", ["a >= 3"]),
        ("(a + b) / 2 < 7", ["(a + b) / 2 < 7"]),
    ],
)
def test_comparisons_with_numbers_are_found(predicate, expected):
    assert [threshold.text for threshold in thresholds_in("step", predicate, COLUMNS)] == expected


@pytest.mark.parametrize(
    "predicate",
    [
        "not a > 3",
        "language = 'en'",
        "a = 3",
        "a > b",
        "language >= '3'",
        "(a > 3) = true",
        "a >= 'inf'::DOUBLE",
        "true",
    ],
)
def test_what_is_no_threshold_is_none(predicate):
    assert thresholds_in("step", predicate, COLUMNS) == []


def test_a_threshold_says_itself_as_sql():
    (threshold,) = thresholds_in("step", 'least("odd name", a) <= 0.1', COLUMNS)
    assert threshold.condition == '(least("odd name", a)) <= 0.1'
    (threshold,) = thresholds_in("step", '"odd name" > 5', COLUMNS)
    assert threshold.condition == '"odd name" > 5.0'
