"""What the explorer counts: equal to DuckDB's answers, to `top`'s own decision, and to a real re-selection."""

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from explored_store import run
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import sql
from curation.analytics.explorer import exporting
from curation.analytics.explorer.facets import NULL_SLOT, SLOTS, Category, Signal, category, signal
from curation.analytics.explorer.ranking import first_of_groups, ranked
from curation.analytics.explorer.selecting import Selector, range_sql
from curation.analytics.explorer.table import Table, load
from curation.analytics.explorer.thresholds import alive, effect, quota, threshold, top_step
from curation.analytics.explorer.wishes import Selection, Threshold
from curation.analytics.limits import Limits
from curation.analytics.query import connect
from curation.selection.top import GROUP, VALUE, Top
from curation.sql_expression import quoted
from curation.storage.store import Store
from curation.versions import resolve

SELECTIONS = {
    "nothing": Selection(),
    "a range": Selection(ranges={"score": (0.3, 0.7)}),
    "two ranges and a value": Selection(
        ranges={"score": (0.2, None), "width_px": (None, 130)}, values={"colour": ("red", None)}
    ),
    "fates": Selection(values={"fate": ("dropped", "failed")}),
    "words": Selection(words="DOG  number"),
    "SQL over what is loaded": Selection(sql="score > 0.4 OR colour = 'red' -- why not"),
    "SQL over what is not": Selection(sql="length(stored_sha256) = 64 and width_px > 100", words="a"),
    "all of them": Selection(
        ranges={"score": (0.1, 0.8)}, values={"colour": ("red", "blue")}, sql="width_px < 140", words="number"
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("explorer")
    run(found)
    return found


@pytest.fixture(scope="module")
def table(root: Path) -> Iterator[Table]:
    store = Store.existing(root / "store")
    with closing(load(store, resolve(store, "set"), Limits(memory_gb=1))) as loaded:
        yield loaded


def samples(root: Path, condition: str, name: str = "set") -> list[str]:
    with connect(root / "store", name) as connection:
        return [
            key for (key,) in connection.execute(f"SELECT key FROM samples WHERE {condition} ORDER BY key").fetchall()
        ]


def keys_of(table: Table, kept_N: np.ndarray) -> list[str]:
    return [row["key"] for row in table.records(np.flatnonzero(kept_N))]


def as_sql(selection: Selection) -> str:
    found = [selection.sql.replace("-- why not", "") or "true"]
    found += [f"contains(lower(caption), lower('{word}'))" for word in selection.words.split()]
    for name, (low, high) in selection.ranges.items():
        found += [f"{name} >= {low}"] * (low is not None) + [f"{name} <= {high}"] * (high is not None)
    for name, labels in selection.values.items():
        found.append(" OR ".join(f"{name} IS NOT DISTINCT FROM {'NULL' if v is None else repr(v)}" for v in labels))
    return " AND ".join(f"({text})" for text in found)


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_a_selection_has_the_rows_that_sql_gives(root: Path, table: Table, selection: Selection) -> None:
    chosen = Selector(table).choose(selection)
    assert keys_of(table, chosen.kept_N) == samples(root, as_sql(selection))
    assert chosen.rows == int(chosen.kept_N.sum())


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_each_histogram_counts_what_all_filters_but_its_own_keep(
    root: Path, table: Table, selection: Selection
) -> None:
    counts_FS = Selector(table).choose(selection).counts_FS
    with connect(root / "store", "set") as connection:
        for place, (name, facet) in enumerate(table.facets.items()):
            others = selection.model_copy(
                update={
                    "ranges": {n: r for n, r in selection.ranges.items() if n != name},
                    "values": {n: v for n, v in selection.values.items() if n != name},
                }
            )
            value = quoted(name)
            if isinstance(facet, Signal):
                place_in = f"floor(({quoted(name)} - {facet.start}) * {1024 / facet.width}) / 1024"
                value = f"CASE WHEN {quoted(name)} IS NOT NULL THEN least(greatest(floor({place_in}), 0), 59) END"
            text = f"SELECT {value} AS v, count(*) FROM samples WHERE {as_sql(others)} GROUP BY v"
            expected = np.zeros(SLOTS, np.int64)
            for found, rows in connection.execute(text).fetchall():
                slot = facet.labels.index(found) if isinstance(facet, Category) and found is not None else found
                expected[NULL_SLOT if slot is None else int(slot)] += rows
            assert counts_FS[place].tolist() == expected.tolist(), name


NUMBERS = st.one_of(st.none(), st.floats(-3, 3, width=32), st.sampled_from([0.1, 0.3, -0.0, 0.0, math.nan, math.inf]))


def made(values: list[float | None], kind: str) -> tuple[Signal | None, pa.Array]:
    array = pa.array(values, pa.float32() if kind == "float32" else pa.float64())
    mask = np.array([value is None for value in values])
    numbers = np.ma.masked_array([0 if v is None else v for v in values], mask, dtype=kind)
    return signal("score", numbers, np.empty(len(values), np.uint16)), array


@settings(max_examples=25, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=30), st.sampled_from(["float32", "float64"]), st.data())
def test_a_range_keeps_what_keep_with_its_sql_keeps(values: list[float | None], kind: str, data: st.DataObject) -> None:
    """NULL, NaN, infinities and values that single precision holds only nearly included."""
    found, array = made(values, kind)
    if found is None:
        return
    finite = [v for v in array.to_pylist() if v is not None and math.isfinite(v)]
    low = data.draw(st.one_of(st.none(), st.sampled_from([*finite, 0.1, 0.3])))
    high = data.draw(st.one_of(st.none(), st.sampled_from([*finite, 0.1, 0.3])))
    expected = sql.evaluate({"kept": range_sql(found, low, high)}, pa.table({"score": array}))["kept"]
    assert found.within(low, high).tolist() == [bool(kept) for kept in expected.to_pylist()]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, st.sampled_from(["a", "b", None])), min_size=1, max_size=40),
    st.sampled_from(["0.29", "0.3", "0.5", "1", "0.001"]),
    st.booleans(),
    st.sampled_from(["desc", "asc"]),
)
def test_a_slider_keeps_what_top_decides(
    rows: list[tuple[float | None, str | None]], fraction: str, in_groups: bool, order: str
) -> None:
    found, array = made([value for value, _ in rows], "float64")
    if found is None:
        return
    labels = [label for _, label in rows]
    keys = [f"{number:032x}" for number in range(len(rows))]
    known = sorted({label for label in labels if label is not None})
    numbers = np.array([len(known) if label is None else known.index(label) for label in labels], np.uint16)
    group = category("group", known, numbers, np.empty(len(rows), np.uint16)) if in_groups else None
    step = Top(by="score", fraction=fraction, per="group" if in_groups else None, order=order)
    data = {"key": pa.array(keys), VALUE: pa.chunked_array([array])}
    decided = step.decide(pa.table(data | ({GROUP: pa.array(labels, pa.string())} if in_groups else {}))).kept
    wish = Threshold(signal="score", kind="top", fraction=fraction)
    kept = first_of_groups(
        found, np.ones(len(rows), bool), group, lambda n: quota(top_step(wish), n), highest=order == "desc"
    )
    assert kept.kept_N.tolist() == decided.tolist()
    assert int(kept.quota_G.sum()) == int(decided.sum())


@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_a_page_in_the_order_of_a_signal_is_that_of_a_whole_sort(
    values: list[float | None], start: int, count: int, highest: bool
) -> None:
    found, _ = made(values, "float64")
    if found is None:
        return
    base = np.array([place % 5 != 4 for place in range(len(values))])
    known = [p for p in np.flatnonzero(base).tolist() if values[p] is not None and not math.isnan(values[p] or 0)]
    known.sort(key=lambda p: -values[p] if highest else values[p])  # type: ignore[operator]
    expected = known + [p for p in np.flatnonzero(base).tolist() if p not in known]
    assert ranked(found, base, start, start + count, highest=highest).tolist() == expected[start : start + count]


THRESHOLDS: list[dict[str, Any]] = [
    {"kind": "keep", "low": 0.3},
    {"kind": "keep", "low": 0.2, "high": 0.6},
    {"kind": "top", "fraction": "0.29"},
    {"kind": "top", "fraction": "0.5", "per": "colour", "order": "asc"},
    {"kind": "top", "rows": 3, "per": "colour"},
]


@pytest.mark.parametrize("wish", THRESHOLDS, ids=str)
def test_the_sliders_count_is_what_a_run_with_its_yaml_then_keeps(
    root: Path, table: Table, wish: dict[str, Any]
) -> None:
    tried = Threshold(signal="score", **wish)
    answer = threshold(table, Selector(table), tried)
    (step,) = yaml.safe_load(answer["yaml"])
    steps = table.chosen.manifest.spec["steps"]
    result = run(
        root,
        [
            "inspect_image",
            {"keep": steps[1]["parameters"], "id": "scored"},
            {"top": steps[2]["parameters"], "id": "best"},
            step,
        ],
        "again",
    )
    assert result.curated == answer["alive"]["kept"]
    assert answer["alive"]["of"] == table.chosen.manifest.rows
    kept = effect(table, tried, alive(table, "")).kept_N
    assert keys_of(table, kept) == samples(root, "fate = 'curated'", "again")


def test_a_threshold_in_the_place_of_a_step_sees_what_was_alive_there(root: Path, table: Table) -> None:
    """The version's own `top`, tried where it stands, leaves what the version has."""
    own = Threshold(signal="score", kind="top", fraction="0.75", per="colour", before="best")
    answer = threshold(table, Selector(table), own)
    assert answer["alive"]["kept"] == table.chosen.manifest.rows
    assert keys_of(table, effect(table, own, alive(table, "best")).kept_N) == samples(root, "fate = 'curated'")


def test_pictures_on_either_side_are_the_nearest_to_the_threshold(table: Table) -> None:
    wish = Threshold(signal="score", kind="keep", low=0.5, before="best")
    (edge,) = threshold(table, Selector(table), wish)["edges"]
    score_N, base_N = table.signal("score").values_N, alive(table, "best")
    kept, dropped = score_N[base_N & (score_N >= 0.5)], score_N[base_N & (score_N < 0.5)]
    assert score_N[edge.kept].tolist() == sorted(kept.tolist())[:6]
    assert score_N[edge.dropped].tolist() == sorted(dropped.tolist(), reverse=True)[:6]


def test_a_selection_exported_as_a_step_or_as_keys_selects_its_rows(root: Path, table: Table) -> None:
    selection = SELECTIONS["all of them"]
    kept_N = Selector(table).choose(selection).kept_N
    found = exporting.steps(table, selection)
    keys = exporting.keys_file(table, kept_N, ".parquet")
    keys.rename(root / "keys.parquet")
    assert pq.read_table(root / "keys.parquet")["key"].to_pylist() == keys_of(table, kept_N)
    (keep,), (join,) = yaml.safe_load(found["keep"]), yaml.load(found["join"], yaml.BaseLoader)
    join["join"]["table"] = str(root / "keys.parquet")
    assert run(root, ["inspect_image", keep], "kept").curated == run(root, ["inspect_image", join], "joined").curated
    assert samples(root, "fate = 'curated'", "kept") == keys_of(table, kept_N)
    assert samples(root, "fate = 'curated'", "joined") == keys_of(table, kept_N)


def test_what_no_step_can_say_is_exported_as_keys_only(table: Table) -> None:
    found = exporting.steps(table, SELECTIONS["fates"])
    assert found["keep"] is None
    assert 'Referenced column "fate" not found' in found["why"]
    assert exporting.steps(table, Selection())["keep"] is None
