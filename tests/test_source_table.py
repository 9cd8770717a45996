"""Tables as sources: what is read, in which order, as which types, and what is refused."""

import csv
import gzip
import io
import json
import os
import pickle
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.files import readable
from curation.sources.table import TableSource, open_table
from schemas.errors import SourceError

PAIRS = [{"url": f"http://x/{i}.jpg", "caption": f"number {i}"} for i in range(7)]
ODD_CAPTIONS = [
    "nul\0inside",
    "z" * 1_000_000,
    "👩‍👩‍👧 ÅÅ \u200b\u202e",
    "line\none\r\ntwo",
    "\ufffe\U0010ffff",
    "",
    None,
    '"q", x\t',
]


def rows_of(source: TableSource) -> list[dict]:
    with duckdb.connect() as connection:
        return connection.sql(source.relation(connection)).to_arrow_table().to_pylist()


def write(path: Path, rows: list[dict]) -> str:
    """Write rows in the format that the suffix names."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    out = io.StringIO(newline="")
    if name.endswith((".jsonl", ".ndjson")):
        out.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(out, rows[0], delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    data = out.getvalue().encode()
    packed = {".gz": gzip.compress, ".zst": lambda plain: pa.compress(plain, "zstd", asbytes=True)}
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return str(path)


def refusal(*args, **kwargs) -> str:
    with pytest.raises(SourceError) as caught:
        open_table(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    "suffix",
    ["parquet", "csv", "tsv", "jsonl", "ndjson", "csv.gz", "csv.zst", "tsv.gz", "jsonl.gz", "jsonl.zst"],
)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    rows = [row | {"width": i, "score": i / 7, "good": i % 2 == 0, "tag": f"0{i}"} for i, row in enumerate(PAIRS)]
    source = open_table(write(tmp_path / f"pairs.{suffix}", rows))
    assert rows_of(source) == rows
    assert source.extra == {"good": pa.bool_(), "score": pa.float64(), "tag": pa.string(), "width": pa.int64()}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_odd_captions_pass_unharmed(tmp_path, suffix):
    captions = [c for c in ODD_CAPTIONS if suffix != "csv" or c not in ("", None)]
    rows = [{"url": str(i), "caption": caption} for i, caption in enumerate(captions)]
    assert [row["caption"] for row in rows_of(open_table(write(tmp_path / f"odd.{suffix}", rows)))] == captions


def test_csv_tells_an_empty_text_from_nothing(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfurl,caption\r\nu,""\r\n,c\r\n')
    rows = rows_of(open_table(str(tmp_path / "a.csv")))
    assert rows == [{"url": "u", "caption": ""}, {"url": None, "caption": "c"}]


def test_csv_fields_hold_delimiters_quotes_and_line_ends_also_where_readers_work_in_parallel(tmp_path):
    captions = [f'{i}"\n",u{i},\r\n"' * (i % 40) for i in range(100_000)]
    path = write(tmp_path / "a.csv", [{"url": f"u{i}", "caption": caption} for i, caption in enumerate(captions)])
    assert os.path.getsize(path) > 20e6
    assert [row["caption"] or "" for row in rows_of(open_table(path))] == captions


def test_csv_types_are_found_over_all_files_and_lose_nothing(tmp_path):
    first = {"url": "u", "caption": "1", "whole": "1", "hash": str(2**64 - 1), "zip": "1", "real": "1", "yes": "True"}
    other = {"url": "v", "caption": "2", "whole": "-2", "hash": "0", "zip": "007", "real": "2.5e-3", "yes": "false"}
    late = first | {"real": "", "whole": ""}
    day = {"day": "2020-01-01", "id": "123456789012345678901.5", "none": ""}
    paths = [write(tmp_path / f"{i}.csv", [row | day]) for i, row in enumerate([first, other, late])]
    source = open_table(paths)
    types = {"hash": "uint64", "real": "double", "whole": "int64", "yes": "bool"}
    assert {n: str(t) for n, t in source.extra.items()} == types | dict.fromkeys(["day", "id", "none", "zip"], "string")
    got = rows_of(source)
    assert [row["zip"] for row in got] == ["1", "007", "1"]
    assert [row["caption"] for row in got] == ["1", "2", "1"]
    assert [row["hash"] for row in got] == [2**64 - 1, 0, 2**64 - 1]
    assert [row["real"] for row in got] == [1.0, 0.0025, None]
    assert [row["id"] for row in got] == [day["id"]] * 3


def test_csv_files_may_order_their_columns_differently(tmp_path):
    write(tmp_path / "a.csv", [{"url": "u", "caption": "c", "n": 1}])
    write(tmp_path / "b.csv", [{"n": 2, "caption": "d", "url": "v"}])
    assert rows_of(open_table(str(tmp_path / "*.csv"))) == [
        {"url": "u", "caption": "c", "n": 1},
        {"url": "v", "caption": "d", "n": 2},
    ]


def test_pandas_index_without_a_name_is_called_by_its_place(tmp_path):
    (tmp_path / "a.csv").write_text(",url,caption\n0,u,c\n")
    assert rows_of(open_table(str(tmp_path / "a.csv"))) == [{"url": "u", "caption": "c", "column0": 0}]


def test_json_text_that_looks_like_something_else_stays_text(tmp_path):
    rows = [
        {"url": "u", "caption": "2020-01-01", "id": "7f6c1c3e-0d2c-4f6b-9f4e-1c2d3e4f5a6b", "at": "10:00:00", "mix": 1},
        {"url": "v", "caption": "2020-01-02", "id": None, "at": None, "mix": "a", "late": {"day": "2020-01-01"}},
    ]
    got = rows_of(open_table(write(tmp_path / "a.jsonl", rows)))
    assert [row["caption"] for row in got] == ["2020-01-01", "2020-01-02"]
    assert (got[0]["id"], got[0]["at"]) == (rows[0]["id"], "10:00:00")
    assert [row["mix"] for row in got] == ["1", "a"]
    assert [row["late"] for row in got] == [None, {"day": "2020-01-01"}]


def test_json_hashes_of_64_bits_stay_exact_and_become_text_beside_negative_numbers(tmp_path):
    rows = [
        {"url": "u", "caption": "c", "phash": 2**64 - 1, "mixed": 2**64 - 1},
        {"url": "v", "caption": "c", "phash": 0, "mixed": -1},
    ]
    source = open_table(write(tmp_path / "a.jsonl", rows))
    assert source.extra == {"mixed": pa.string(), "phash": pa.uint64()}
    assert [(row["phash"], row["mixed"]) for row in rows_of(source)] == [(2**64 - 1, str(2**64 - 1)), (0, "-1")]


def test_json_files_may_lack_fields_and_hold_whole_numbers_beside_others(tmp_path):
    write(tmp_path / "a.jsonl", [{"url": "u", "score": 1, "meta": {"a": 1}, "n": None}])
    write(tmp_path / "b.jsonl", [{"url": "v", "caption": "c", "score": 0.5, "meta": {"b": "x"}, "n": 3}])
    assert rows_of(open_table(str(tmp_path / "*.jsonl"))) == [
        {"url": "u", "caption": None, "meta": {"a": 1, "b": None}, "n": None, "score": 1.0},
        {"url": "v", "caption": "c", "meta": {"a": None, "b": "x"}, "n": 3, "score": 0.5},
    ]


def test_timestamps_lists_and_structs_ride_along(tmp_path):
    from datetime import UTC, datetime
    from decimal import Decimal

    row = {
        "url": "u",
        "caption": "c",
        "at": datetime(2020, 1, 1, 12, tzinfo=UTC),
        "price": Decimal("1.50"),
        "tags": ["a", None],
        "box": {"x": 1, "parts": [{"y": 2.5}]},
        "raw": b"\0\xff",
        "none": None,
    }
    source = open_table(write(tmp_path / "a.parquet", [row]))
    assert rows_of(source) == [dict(sorted(row.items(), key=lambda item: (item[0] not in ("url",), item[0])))]
    assert source.extra["at"] == pa.timestamp("us", "UTC")
    pq.write_table(
        pa.Table.from_pylist(rows_of(source), pa.schema(dict(url=pa.string(), caption=pa.string(), **source.extra))),
        io.BytesIO(),
    )


def test_harmless_differences_between_parquet_files_are_widened(tmp_path):
    first = {"url": ["u"], "caption": ["c"], "n": pa.array([1], pa.int32()), "x": pa.array([0.5], pa.float32())}
    second = {"x": pa.array([0.1]), "caption": ["d"], "n": pa.array([2**40]), "url": ["v"]}
    third = {"url": ["w"], "caption": pa.nulls(1), "n": pa.nulls(1), "x": pa.array([3], pa.int32())}
    for name, columns in zip("abc", (first, second, third), strict=True):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    source = open_table(str(tmp_path / "*.parquet"))
    assert source.extra == {"n": pa.int64(), "x": pa.float64()}
    assert [tuple(row.values()) for row in rows_of(source)] == [
        ("u", "c", 1, 0.5),
        ("v", "d", 2**40, 0.1),
        ("w", None, None, 3.0),
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "jsonl.gz"])
def test_the_limit_takes_the_first_rows_in_the_order_of_files_however_they_are_listed(tmp_path, suffix):
    per_file = 3_000
    paths = [
        write(tmp_path / f"{name}.{suffix}", [{"url": f"{name}{i:04d}", "caption": "c"} for i in range(per_file)])
        for name in "abcd"
    ]
    first = open_table(paths, limit=2 * per_file + 5)
    again = open_table([paths[3], str(tmp_path / f"*.{suffix}"), paths[0]], limit=2 * per_file + 5)
    wanted = [f"{name}{i:04d}" for name in "abc" for i in range(per_file)][: 2 * per_file + 5]
    assert [row["url"] for row in rows_of(first)] == wanted
    assert [row["url"] for row in rows_of(again)] == wanted
    assert first.files == again.files
    assert [file.path for file in first.files] == paths


def test_files_are_named_by_length_and_digest(tmp_path):
    import hashlib

    path = write(tmp_path / "a.parquet", PAIRS)
    (file,) = open_table(path).files
    data = Path(path).read_bytes()
    assert (file.path, file.bytes, file.sha256) == (path, len(data), hashlib.sha256(data).hexdigest())


def test_a_file_named_like_a_glob_is_one_file(tmp_path):
    write(tmp_path / "a1.jsonl", PAIRS[:1])
    path = write(tmp_path / "a[1].jsonl", PAIRS[1:2])
    assert rows_of(open_table(path)) == PAIRS[1:2]


def test_columns_are_mapped_and_the_others_keep_their_names(tmp_path):
    path = write(tmp_path / "a.parquet", [{"link": "u", "alt text": "c", 'od"d': 1, "phash": 5, "key": "k"}])
    mapping = {"url": "link", "caption": "alt text", "source_key": "key", "hash": "phash"}
    assert rows_of(open_table(path, mapping)) == [{"url": "u", "caption": "c", "hash": 5, 'od"d': 1, "source_key": "k"}]


def test_a_url_or_caption_that_is_not_mapped_is_null(tmp_path):
    path = write(tmp_path / "a.csv", [{"text": "c", "n": 1}])
    assert rows_of(open_table(path, {"caption": "text"})) == [{"url": None, "caption": "c", "n": 1}]


def test_a_table_without_rows_is_fine(tmp_path):
    pq.write_table(
        pa.table({"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())}), tmp_path / "a.parquet"
    )
    (tmp_path / "a.csv").write_text("url,caption,n\n")
    assert rows_of(open_table(str(tmp_path / "a.parquet"))) == []
    assert rows_of(open_table(str(tmp_path / "a.csv"))) == []


def test_a_source_travels_to_another_process(tmp_path):
    source = open_table(write(tmp_path / "a.parquet", [row | {"n": 1} for row in PAIRS]))
    assert pickle.loads(pickle.dumps(source)).relation() == source.relation()


def test_what_names_no_file_is_refused_with_what_is_there(tmp_path):
    write(tmp_path / "pairs.parquet", PAIRS)
    assert "did you mean 'pairs.parquet'?" in refusal(str(tmp_path / "pair.parquet"))
    found = refusal(str(tmp_path / "pair*.csv"))
    assert "matches no file" in found
    assert "did you mean" not in found
    assert "is a folder" in refusal(str(tmp_path))
    assert "there is no folder" in refusal(str(tmp_path / "no" / "a.csv"))
    assert "braces are not expanded" in refusal(str(tmp_path / "{0..3}.csv"))
    assert "names no file" in refusal([])


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    assert "a.csv is empty (0 bytes)" in refusal(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "csv.gz", "jsonl.zst"])
def test_another_format_than_the_suffix_says_is_refused_in_one_line(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xfe" * 10)
    message = refusal(str(path))
    assert str(path) in message
    assert "\n" not in message
    assert "LINE 1" not in message


def test_damage_late_in_a_text_file_is_found_before_anything_runs(tmp_path):
    lines = [json.dumps(row) for row in PAIRS * 10_000]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, '{"url": ', *lines]))
    assert "line 70001: is no JSON" in refusal(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.csv").write_text("url,caption,n\n" + "u,c,1\n" * 50_000 + "u,c\n")
    assert "line 50002: has 2 fields, the header has 3" in refusal(str(tmp_path / "a.csv"))


def test_unknown_packed_and_mixed_suffixes_are_refused(tmp_path):
    parquet = write(tmp_path / "a.parquet", PAIRS)
    assert "none of the suffixes" in refusal(write(tmp_path / "a.txt", PAIRS))
    assert "unpack the file" in refusal(write(tmp_path / "b.parquet.gz", PAIRS))
    assert "different formats" in refusal([parquet, write(tmp_path / "b.csv", PAIRS)])


def test_a_missing_column_is_refused_with_what_exists(tmp_path):
    path = write(tmp_path / "a.parquet", [{"URL": "u", "caption": "c"}])
    message = refusal(path)
    assert "has no column 'url'" in message
    assert "it has: URL, caption; did you mean 'URL'?" in message
    with_v = write(tmp_path / "b.parquet", [{"url": "u", "caption": "c", "v": 1}])
    assert "has column 'v', and " in (said := refusal([with_v, write(tmp_path / "c.parquet", PAIRS)]))
    assert "did you mean 'v'" not in said
    assert "has no column 'alt'" in refusal(path, {"url": "URL", "caption": "alt"})


@pytest.mark.parametrize(
    ("suffix", "value", "kind"), [("parquet", 5, "BIGINT"), ("jsonl", [1], "BIGINT[]"), ("parquet", b"x", "BLOB")]
)
def test_a_caption_that_is_not_text_is_refused(tmp_path, suffix, value, kind):
    message = refusal(write(tmp_path / f"a.{suffix}", [{"url": "u", "caption": value}]))
    assert f"column 'caption' is to be the caption and is {kind}; it must be text" in message


def test_a_caption_that_is_text_in_some_rows_only_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"url": "u", "caption": "c"}, {"url": "v", "caption": 5}])
    assert "text in some rows and not in others" in refusal(path)


def test_a_schema_that_changes_between_files_is_refused_with_both_files_and_types(tmp_path):
    first = write(tmp_path / "a.parquet", [PAIRS[0] | {"n": 1}])
    same = write(tmp_path / "b.parquet", [PAIRS[1] | {"n": 2}])
    text = write(tmp_path / "c.parquet", [PAIRS[1] | {"n": "one"}])
    message = refusal([first, same, text])
    assert f"column 'n' is BIGINT in {first} and VARCHAR in {text}" in message
    renamed = write(tmp_path / "d.parquet", [PAIRS[1] | {"m": 1}])
    assert f"{first} has column 'n', and {renamed} has none of that name" in refusal([first, renamed])
    more = write(tmp_path / "e.csv", [PAIRS[0] | {"width": 1, "widht": 2}])
    less = write(tmp_path / "f.csv", [PAIRS[0] | {"width": 1}])
    assert f"{more} has column 'widht', and {less} has none" in refusal([more, less])
    one = write(tmp_path / "g.jsonl", [PAIRS[0] | {"n": 1}])
    other = write(tmp_path / "h.jsonl", [PAIRS[0] | {"n": "one"}])
    assert f"column 'n' is BIGINT in {one} and VARCHAR in {other}" in refusal([one, other])


def test_whole_numbers_of_64_bits_are_not_widened_to_floats(tmp_path):
    write(tmp_path / "a.parquet", [PAIRS[0] | {"n": 2**60 + 1}])
    write(tmp_path / "b.parquet", [PAIRS[0] | {"n": 0.5}])
    assert "column 'n' is BIGINT in" in refusal(str(tmp_path / "*.parquet"))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_columns_that_differ_by_case_only_are_refused(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", [PAIRS[0] | {"Score": 1, "score": 2}])
    assert "Score" in refusal(path)
    assert "differ by case only" in refusal(path)


@pytest.mark.parametrize("name", ["key", "fate", "fate_step", "fate_reason", "duplicate_of", "Key"])
def test_names_that_every_curated_set_has_are_refused_with_the_mapping_to_write(tmp_path, name):
    path = write(tmp_path / "a.parquet", [PAIRS[0] | {name: "x"}])
    assert f"columns: {{source_{name}: {name}}}" in refusal(path)
    assert list(open_table(path, {"url": "url", "caption": "caption", "mine": name}).extra) == ["mine"]


def test_a_column_that_would_stand_beside_a_mapped_one_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", [PAIRS[0] | {"text": "x"}])
    assert "columns: {source_caption: caption}" in refusal(path, {"url": "url", "caption": "text"})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.csv",
            "a,b\nc,d,e,f\n",
            "line 3: has 4 fields, the header has 2; put a field that holds the delimiter into",
        ),
        ("a.csv", '"a\n\nb",b\nc\n', "line 5: has 1 field, the header has 2; write every field"),
        ("a.csv", 'a,b\nc,"d\ne,f\n', "line 3: a double quote opens a field, and none closes it"),
        ("a.csv", 'a,b\n"c"x,d\n', "line 3: text stands behind a closing double quote; write a quote inside"),
        ("a.csv", "a,b\nc,gr\udcfcn\n", "line 3: is not UTF-8 text (invalid start byte at byte 4)"),
        ("a.tsv.gz", "a\tb\nc\td\te\n", "line 3: has 3 fields, the header has 2"),
        ("a.jsonl", '{"url": "a"}\n{"url": \n', "line 2: is no JSON: Expecting value (column 8); every line holds one"),
        ("a.jsonl", '[{"url": "a"}]\n', "line 1: is a list; every line holds one object"),
        ("a.jsonl", '{"url": "a"}\n\n3\n', "line 3: is a number; every line holds one object"),
        ("a.jsonl", '{"url": "a"}\n{"url": "\udcff"}\n', "line 2: is not UTF-8 text"),
    ],
)
def test_of_a_text_file_that_is_wrong_the_line_is_named_and_what_to_do(tmp_path, name, text, said):
    data = (("url,caption\n" if ".csv" in name else "url\tcaption\n" if ".tsv" in name else "") + text).encode(
        errors="surrogateescape"
    )
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = refusal(str(path), {"url": "url"})
    assert found.startswith(f"source table: {path}: {said}")
    assert "records=" not in found
    assert "strict" not in found


def test_a_fault_far_behind_the_first_rows_is_named_with_its_file_and_line(tmp_path):
    path = tmp_path / "late.csv"
    path.write_text("url,caption\n" + "http://example.org/,a caption\n" * 60_000 + "a,b,c\n")
    source = open_table(str(path))
    with pytest.raises(SourceError, match=r"^source: .*late\.csv: line 60002: has 3 fields"), readable("source"):
        rows_of(source)
