"""SQL over a row: what is refused before anything runs, and that evaluation changes nothing but what it should."""

import decimal
import threading
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import sql
from curation.selection.keep import Keep
from schemas.errors import InputError, RunError

COLUMNS = {
    "key": pa.string(),
    "caption": pa.string(),
    "width_px": pa.int32(),
    "phash": pa.uint64(),
    "clip_image": pa.binary(4),
    "tags": pa.list_(pa.string()),
    "about": pa.struct({"caption": pa.string()}),
}


def rows(**columns) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"key": [f"{n:032x}" for n in range(count)]} | columns)


def value(expression: str, **columns):
    return sql.evaluate({"v": expression}, rows(**columns))["v"].to_pylist()


def halves(*numbers: float) -> bytes:
    return np.array(numbers, np.float16).tobytes()


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("width_px >= 64", pa.bool_()),
        ("length(caption) between 3 and 1000", pa.bool_()),
        ("width_px * 2.5", pa.decimal128(12, 1)),
        ("WIDTH_PX / 2", pa.float64()),
        ("xor(phash, 1)", pa.uint64()),
        ("clip_image", pa.list_(pa.field("l", pa.float32()))),
        ("repeat(caption, 2)", pa.string()),
        ("range(3)", pa.list_(pa.field("l", pa.int64()))),
        ("list_filter(tags, lambda t: t <> caption)", pa.list_(pa.field("l", pa.string()))),
        ("try(caption::int)", pa.int32()),
        ("about.caption", pa.string()),
        ("caption -- a comment", pa.string()),
        ("'a;b'", pa.string()),
    ],
)
def test_the_type_of_an_expression_is_the_one_that_duckdb_binds(expression, kind):
    assert sql.bind({"v": expression}, COLUMNS) == {"v": kind}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("length(capton) > 3", 'Referenced column "capton" not found. Candidates: "caption"'),
        ("capton", 'Candidates: "caption"'),
        ("caption > 3 and tags > 3", "Cannot compare"),
        ("no_such(caption)", "Scalar Function with name no_such does not exist"),
        ("length()", "No function matches the given name and argument types 'length()'"),
        ("caption >", 'is no SQL expression: syntax error at or near ")": caption >'),
        ("", "is empty"),
        ("  \n", "is empty"),
        ("-- nothing", "is empty"),
        ("RANDOM()", "does not give the same value every time (VOLATILE)"),
        ("main.random()", "does not give the same value every time"),
        ("list_transform(tags, lambda t: random())", "does not give the same value every time"),
        ("now()", "does not give the same value every time"),
        ("current_date", "does not give the same value every time"),
        ("CURRENT_TIMESTAMP", "does not give the same value every time"),
        ("current_localtimestamp()", "does not give the same value every time"),
        ("age(make_date(2020, 1, 1))", "counts from today"),
        ("uuid()", "does not give the same value every time"),
        ("getvariable('x')", "does not give the same value every time"),
        ("current_setting('TimeZone')", "does not give the same value every time"),
        ("version()", "does not give the same value every time"),
        ("session_user", "does not give the same value every time"),
        ("width_px > (select 3)", "holds a subquery"),
        ("exists(select 1)", "holds a subquery"),
        ("width_px in (select 3)", "holds a subquery"),
        ("max(width_px)", "max() is a function over many rows"),
        ("count(*)", "is a function over many rows"),
        ("row_number() over ()", "holds a window function"),
        ("unnest(tags)", "unnest() is a function over many rows"),
        ("generate_subscripts(tags, 1)", "is a function over many rows"),
        ("read_text('/etc/passwd')", "read_text() is a function over many rows"),
        ("*", "holds a star"),
        ("columns('w.*')", "holds a star"),
        ("#1", "holds a column by number"),
        ("$1", "holds a parameter"),
        ("__row__", "is no column"),
        ("row", 'Referenced column "row" not found'),
        ("1; select 2", "is no SQL expression"),
        ("1) as a, (2", "must be one SQL expression"),
        ('1) as value from "__row__" union all select (2', "must be one SQL expression"),
        ("1) as value from duckdb_settings() where (\"name\" = 'x'", "is no SQL expression"),
        ("1 /* and", "unterminated /* comment"),
    ],
)
def test_what_is_no_function_of_one_row_is_refused_before_anything_runs(expression, said):
    with pytest.raises(InputError) as raised:
        sql.bind({"v": expression}, COLUMNS)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_columns_that_differ_only_in_case_are_refused_where_they_are_used():
    columns = {"Url": pa.string(), "url": pa.string(), "caption": pa.string()}
    with pytest.raises(InputError, match="could be Url or url: SQL ignores case"):
        sql.bind({"v": "length(url)"}, columns)
    assert sql.bind({"v": "caption"}, columns) == {"v": pa.string()}


def test_the_columns_that_an_expression_reads_are_known():
    assert sql.used_columns("width_px > 3 and (CAPTION = 'key' or tags[1] = '')", COLUMNS) == {
        "width_px",
        "caption",
        "tags",
    }
    assert sql.used_columns("about.caption", COLUMNS) == {"about"}
    assert sql.used_columns("true", COLUMNS) == set()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))), min_size=1, max_size=20))
def test_text_passes_unharmed(captions):
    assert value("caption", caption=captions) == captions
    assert value("length(caption)", caption=captions) == [None if c is None else len(c) for c in captions]


@pytest.mark.parametrize("caption", ["a\0b", "\0", "🏳️‍🌈", "\ufeffx", "\U0010ffff", "'; drop", '"', "x" * 1_000_000])
def test_unusual_captions_pass_unharmed(caption):
    assert value("caption", caption=[caption, None]) == [caption, None]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([2**64 - 1, None], pa.uint64()), pa.uint64()),
        (pa.array([b"\0\xff", None]), pa.binary()),
        (pa.array([1_700_000_000_123_456, None], pa.timestamp("us")), pa.timestamp("us")),
        (pa.array([["a", None], None], pa.list_(pa.string())), pa.list_(pa.field("l", pa.string()))),
        (pa.array([float("nan"), None], pa.float32()), pa.float32()),
        (pa.array([decimal.Decimal("1.25"), None]), pa.decimal128(3, 2)),
        (pa.array(["a", None], pa.large_string()), pa.string()),
    ],
)
def test_values_of_every_kind_pass_unharmed(array, kind):
    table = sql.evaluate({"v": "x"}, rows(x=array))
    assert table["v"].type == kind
    assert str(table["v"].to_pylist()) == str(array.to_pylist())


def test_embeddings_are_lists_of_numbers_whatever_slice_of_a_table_they_stand_in():
    vectors = pa.array([halves(9, 9), halves(3, 4), None, halves(0, -1)], pa.binary(4))
    table = rows(clip_image=vectors).slice(1)
    found = sql.evaluate({"v": "clip_image", "d": "list_dot_product(clip_image, [1, 2])"}, table)
    assert found["v"].to_pylist() == [[3, 4], None, [0, -1]]
    assert found["d"].to_pylist() == [11, None, -2]
    chunked = pa.concat_tables([table, table.slice(0, 0), table])
    assert sql.evaluate({"v": "clip_image[1]"}, chunked)["v"].to_pylist() == [3, None, 0] * 2


def test_a_million_rows_keep_their_order():
    numbers = np.random.default_rng(0).permutation(1_000_000)
    table = pa.table({"n": numbers})
    assert np.array_equal(sql.evaluate({"v": "n + 1"}, table)["v"].to_numpy(), numbers + 1)


def test_an_expression_without_columns_has_a_value_for_every_row():
    assert value("1 + 1", x=[0, 0, 0]) == [2, 2, 2]
    assert value("1 + 1", x=pa.array([], pa.int8())) == []


def test_an_error_on_a_row_names_its_key_and_try_avoids_it():
    captions = ["1"] * 5_000
    captions[4_321] = "x\0"
    with pytest.raises(RunError) as raised:
        value("caption::int > 0", caption=captions)
    assert f"on the row with key {4_321:032x}: Could not convert string" in str(raised.value)
    assert "wrap it in try(…)" in str(raised.value)
    assert "LINE" not in str(raised.value)
    assert value("try(caption::int)", caption=captions)[4_320:4_322] == [1, None]


def test_times_do_not_depend_on_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    found = []
    thread = threading.Thread(  # a connection of its own
        target=lambda: found.extend(value("timestamptz '2020-01-01 10:00' = timestamptz '2020-01-01 10:00+00'", x=[1]))
    )
    thread.start()
    thread.join()
    assert found == [True]


def test_threads_evaluate_side_by_side():
    found: dict[int, list[int]] = {}

    def work(number: int) -> None:
        for _ in range(20):
            found[number] = value(f"x * {number}", x=[1, 2, 3])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number, 2 * number, 3 * number] for number in range(4)}


def test_names_of_results_may_hold_anything():
    name = f'a"b) {uuid.UUID(int=1)}'
    assert sql.evaluate({name: "x"}, rows(x=[1])).column_names == [name]


def test_sql_reads_no_file(tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(InputError):
        sql.bind({"v": f"(from '{tmp_path}/secret.csv')"}, COLUMNS)


def test_keep_counts_null_as_false():
    keep = Keep(predicate="x > 1")
    keep.check({"kept": pa.bool_()})
    assert keep.keep_mask(rows(x=[0, None, 2])).tolist() == [False, False, True]
    assert Keep(predicate="true").keep_mask(rows(x=[1, 2])).tolist() == [True, True]
    assert Keep(predicate="null::boolean").keep_mask(rows(x=[1, 2])).tolist() == [False, False]
    assert keep.reason == "x > 1"
    assert not keep.barrier


def test_keep_refuses_what_is_no_predicate():
    keep = Keep(predicate="width_px")
    with pytest.raises(InputError, match="is no predicate: width_px is int32"):
        keep.check(sql.bind(keep.inputs, COLUMNS))
