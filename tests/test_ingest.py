"""Ingest: keys, parts, snapshots, and what a source that changed its shape costs."""

import hashlib
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job

from curation.ingest import MEMBER, REASON, Snapshot, Staging, ingest
from curation.storage import out_of_core
from curation.storage.pool import read_pool
from curation.storage.store import Store
from curation.storage.tables import read_table
from schemas.errors import InputError


def key_of(url: str, caption: str | None) -> str:
    return hashlib.sha256(f"{url}\n{caption or ''}".encode()).hexdigest()[:32]


def rows_sql(rows: list[tuple[str | None, str | None, int]]) -> str:
    def text(value: str | None) -> str:
        return "NULL" if value is None else "'" + value.replace("'", "''") + "'"

    values = ", ".join(f"({text(url)}, {text(caption)}, {number})" for url, caption, number in rows)
    return f"SELECT * FROM (VALUES {values}) AS source(url, caption, number)"


def take_in(
    store: Store, name: str, rows: list[tuple[str | None, str | None, int]], rows_per_part: int = 10
) -> Snapshot:
    staging = Staging({"name": name}, rows_sql(rows), {"number": pa.int32()})
    return ingest(store, staging, rows_per_part)


def keys_of(store: Store) -> list[str]:
    return [key for part in read_pool(store).parts for key in read_table(store, part.file)["key"].to_pylist()]


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


def test_a_key_is_the_first_128_bits_of_the_digest_of_url_newline_caption(store):
    take_in(store, "a", [("http://a/1", "one", 1), ("http://a/2", None, 2)])
    assert sorted(keys_of(store)) == sorted([key_of("http://a/1", "one"), key_of("http://a/2", None)])


def test_null_and_empty_captions_are_one_row_and_both_are_counted_as_read(store):
    snapshot = take_in(store, "a", [("http://a/1", None, 1), ("http://a/1", "", 2)])
    assert (snapshot.rows_read, snapshot.keys) == (2, 1)


def test_of_equal_rows_the_columns_with_the_smallest_json_stay(store):
    for name, rows in (("a", [("u", "c", 9), ("u", "c", 5)]), ("b", [("u", "c", 5), ("u", "c", 9)])):
        member = take_in(store, name, rows).parts[0]
        assert read_table(store, member.file)["number"].to_pylist() == [5]


def test_a_row_whose_url_holds_a_newline_fails_at_the_source(store):
    snapshot = take_in(store, "a", [("http://a\nb", "c", 1), ("http://a", "ok", 2)])
    rejected = read_table(store, snapshot.rejected)
    assert rejected[REASON].to_pylist() == ["the URL holds a newline"]
    assert snapshot.keys == 2
    assert keys_of(store) == [key_of("http://a", "ok")]


def test_a_row_with_a_newline_never_takes_the_key_of_a_sound_row(store):
    colliding = [("a\nb", "c", 1), ("a", "b\nc", 2)]
    assert key_of("a\nb", "c") == key_of("a", "b\nc")
    snapshot = take_in(store, "a", colliding)
    assert (snapshot.rejected_rows, snapshot.keys) == (0, 1)
    assert read_table(store, snapshot.parts[0].file)["number"].to_pylist() == [2]


def test_parts_do_not_depend_on_the_order_of_the_source(tmp_path):
    rows = [(f"http://a/{i % 40}", f"caption {i}", i) for i in range(100)]
    contents = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        store = Store.open(tmp_path / name)
        take_in(store, name, order, rows_per_part=7)
        contents.append([part.file.sha256 for part in read_pool(store).parts])
    assert contents[0] == contents[1]
    assert len(contents[0]) > 5


def test_no_url_is_cut_between_parts(store):
    take_in(store, "a", [(f"http://a/{i % 5}", f"caption {i}", i) for i in range(100)], rows_per_part=3)
    seen = [set(read_table(store, part.file)["url"].to_pylist()) for part in read_pool(store).parts]
    assert sum(map(len, seen)) == 5


def test_a_source_that_grew_adds_only_its_new_keys(store):
    rows = [(f"http://a/{i}", "c", i) for i in range(30)]
    take_in(store, "a", rows)
    before = [part.file for part in read_pool(store).parts]
    snapshot = take_in(store, "b", [*rows[::-1], ("http://a/new", "c", 99)])
    pool = read_pool(store)
    assert [part.file for part in pool.parts[: len(before)]] == before
    assert sum(part.rows for part in pool.parts[len(before) :]) == 1
    assert snapshot.keys == 31


def test_a_snapshot_knows_its_members_and_their_columns_in_shared_parts(store):
    take_in(store, "a", [("http://a/1", "c", 1), ("http://a/2", "c", 2)])
    snapshot = take_in(store, "b", [("http://a/2", "c", 22)])
    table = read_table(store, snapshot.parts[0].file)
    assert sorted(zip(table[MEMBER].to_pylist(), table["number"].to_pylist(), strict=True), key=str) == [
        (False, None),
        (True, 22),
    ]


def test_a_new_caption_of_a_known_url_names_the_row_that_may_have_its_bytes(store):
    take_in(store, "a", [("http://a/1", "old", 1)])
    take_in(store, "b", [("http://a/1", "new", 2), ("http://a/2", "other", 3)])
    (ref,) = read_pool(store).shared
    (shared,) = read_table(store, ref).to_pylist()
    assert (shared["home_part"], shared["home_row"]) == ("00000-000000", 0)
    new = read_pool(store).parts[1]
    assert (shared["part"], read_table(store, new.file)["caption"][shared["row"]].as_py()) == (new.name, "new")


def test_the_same_snapshot_is_not_ingested_twice(store):
    first = take_in(store, "a", [("http://a/1", "c", 1)])
    assert take_in(store, "a", [("http://other", "never read", 1)]) == first


def test_rows_without_a_url_do_not_fall_into_one_part(store):
    take_in(store, "a", [(None, f"caption {i}", i) for i in range(50)], rows_per_part=10)
    assert len(read_pool(store).parts) == 5


@pytest.mark.parametrize("caption", ["nul \x00 byte", "emoji 👩‍👩‍👧 \u202e bidi", "x" * 1_000_000, "line\nbreak\ttab"])
def test_any_caption_passes_unharmed(store, caption):
    relation = Staging({"name": "a"}, "SELECT url, caption FROM odd", {})
    import duckdb

    from curation import ingest as module

    table = pa.table({"url": ["http://a/1"], "caption": [caption]})
    with out_of_core.database(store) as database:
        assert isinstance(database, duckdb.DuckDBPyConnection)
        database.register("odd", table)
        assert module._stage(database, relation) == 1
        while not module._add_new_parts(store, database, 10):
            pass
    assert read_table(store, read_pool(store).parts[0].file)["caption"].to_pylist() == [caption]
    assert keys_of(store) == [key_of("http://a/1", caption)]


def test_a_source_may_name_its_columns_as_ingest_names_its_own(store):
    names = [
        "reason",
        "place",
        "slot",
        "member",
        "address",
        "named",
        "origin",
        "failure",
        "picture_sha256",
        "row",
        "rank",
    ]
    columns = ", ".join(f"{i} AS {name}" for i, name in enumerate(names))
    relation = f"SELECT 'http://a/1' AS url, 'c' AS caption, {columns}"
    snapshot = ingest(store, Staging({"name": "a"}, relation, dict.fromkeys(names, pa.int32())), 10)
    table = read_table(store, snapshot.parts[0].file)
    assert [table[name].to_pylist() for name in names] == [[i] for i in range(len(names))]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "folder", "webdataset", "img2dataset"])
def test_a_source_without_rows_is_refused_before_anything_is_in_the_store(tmp_path, kind):
    pairs = {"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())}
    folder = tmp_path / "source"
    folder.mkdir()
    if kind == "csv":
        (folder / "pairs.csv").write_text("url,caption\n")
    elif kind == "parquet":
        pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    elif kind == "jsonl":
        (folder / "pairs.jsonl").write_text("\n\n")
    elif kind != "folder":
        tarfile.open(folder / "00000.tar", "w").close()
        names = ("key", "status", "error_message")
        columns = pairs | {name: pa.array([], pa.string()) for name in names}
        pq.write_table(pa.table(columns), folder / "00000.parquet")
    asked = {"folder": str(folder), "webdataset": f"{folder}/*.tar", "img2dataset": str(folder)}
    source = {kind: asked[kind]} if kind in asked else {"table": f"{folder}/pairs.{kind}"}
    with pytest.raises(InputError, match=r"source.* no (row|sample|picture)"):
        run_job({"name": "set", "store": f"{tmp_path}/store", "source": source, "shards": {"format": "parquet"}})
    assert not (tmp_path / "store").exists()
