"""What img2dataset wrote, as a source: tars and Parquets joined by its keys."""

import io
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.img2dataset import open_img2dataset
from schemas.errors import SourceError

SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("sha256", pa.string()),
    ]
)


def record(key: str, status: str = "success", error: str | None = None) -> dict:
    width = 256 if status == "success" else None
    return {
        "url": f"http://x/{key}",
        "caption": f"c{key}",
        "key": key,
        "status": status,
        "error_message": error,
        "width": width,
        "sha256": "s",
    }


def shard(folder: Path, number: int, keys_in_tar: list[str], records: list[dict], schema: pa.Schema = SCHEMA) -> None:
    with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
        for key in keys_in_tar:
            for extension, data in (("jpg", f"picture {key}".encode()), ("json", b"{}"), ("txt", b"other")):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    pq.write_table(pa.Table.from_pylist(records, schema), folder / f"{number:05d}.parquet")


@pytest.fixture
def out(tmp_path):
    """Two shards, the tars' order is not the Parquets'; one row failed, as they do."""
    failed = record("000000001", "failed_to_download", "HTTP Error 404: Not Found")
    shard(tmp_path, 0, ["000000002", "000000000"], [record("000000000"), failed, record("000000002")])
    shard(tmp_path, 1, ["000010000"], [record("000010000")])
    (tmp_path / "00000_stats.json").write_text("{}")
    return tmp_path


def rows_of(path, columns=None, limit=None):
    source = open_img2dataset(path, columns, limit)
    return [row for index in range(len(source.files)) for row in source.read(index)]


def test_pictures_come_from_the_tar_and_the_rest_from_the_parquet(out):
    rows = rows_of(str(out))
    assert [(row.url, row.caption, row.picture) for row in rows] == [
        ("http://x/000000002", "c000000002", b"picture 000000002"),
        ("http://x/000000000", "c000000000", b"picture 000000000"),
        ("http://x/000000001", "c000000001", None),
        ("http://x/000010000", "c000010000", b"picture 000010000"),
    ]
    assert rows[0].extra == {"sha256": "s", "width": 256}
    assert rows[0].origin == "00000.tar:000000002"


def test_rows_that_img2dataset_could_not_fetch_are_failed_rows_with_its_reason(out):
    (failed,) = [row for row in rows_of(str(out)) if row.failure]
    assert (failed.failure.status, failed.extra["width"]) == ("failed_to_download", None)
    assert failed.failure.error == "img2dataset: HTTP Error 404: Not Found"


def test_a_folder_a_glob_and_a_list_are_the_same(out):
    tars = [str(out / "00001.tar"), str(out / "00000.tar")]
    assert open_img2dataset(str(out)).files == open_img2dataset(str(out / "*.tar")).files
    assert open_img2dataset(str(out)).files == open_img2dataset(tars).files
    assert [row.origin for row in rows_of(tars)] == [row.origin for row in rows_of(str(out))]


def test_a_digest_stands_for_tar_and_parquet(out):
    before = open_img2dataset(str(out)).files
    shard(out, 1, ["000010000"], [record("000010000") | {"caption": "new"}])
    after = open_img2dataset(str(out)).files
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_tars_and_parquets_that_do_not_fit_give_failed_rows_and_lose_none(tmp_path):
    records = [record("0"), record("0") | {"caption": "again"}, record("1")]
    shard(tmp_path, 0, ["0", "2"], records)
    found = {row.origin: row.failure and row.failure.status for row in rows_of(str(tmp_path))}
    assert found == {
        "00000.tar:0": None,
        "00000.tar:2": "not_in_parquet",
        "00000.tar:0:1": "duplicate_name",
        "00000.tar:1": "missing",
    }


def test_columns_are_mapped_and_a_set_without_captions_has_none(tmp_path):
    schema = SCHEMA.remove(SCHEMA.get_field_index("caption")).append(pa.field("alt", pa.string()))
    shard(tmp_path, 0, ["0"], [record("0") | {"alt": "text"}], schema)
    assert rows_of(str(tmp_path))[0].caption is None
    (row,) = rows_of(str(tmp_path), {"caption": "alt", "their_key": "key"})
    assert (row.caption, row.extra) == ("text", {"sha256": "s", "their_key": "0", "width": 256})


def test_a_shard_of_failures_alone_has_columns_of_nothing(tmp_path):
    failed = record("000010000", "failed_to_download", "gone")
    empty = pa.schema([pa.field(f.name, pa.null() if f.name in ("width", "sha256") else f.type) for f in SCHEMA])
    shard(tmp_path, 0, ["0"], [record("0") | {"error_message": None}])
    shard(tmp_path, 1, [], [failed | {"sha256": None}], empty)
    source = open_img2dataset(str(tmp_path))
    assert source.extra == {"sha256": pa.string(), "width": pa.int32()}
    assert [row.failure.error for row in source.read(1)] == ["img2dataset: gone"]


def test_unfinished_and_foreign_folders_are_refused(out, tmp_path_factory):
    (out / "00001.parquet").rename(out / "moved")
    with pytest.raises(SourceError, match=r"00001\.tar has no 00001\.parquet beside it"):
        open_img2dataset(str(out))
    (out / "moved").rename(out / "00002.parquet")
    with pytest.raises(SourceError, match=r"00002\.parquet has no 00002\.tar beside it"):
        open_img2dataset(str(out))
    with pytest.raises(SourceError, match=r"holds no \.tar"):
        open_img2dataset(str(tmp_path_factory.mktemp("empty")))
    other = tmp_path_factory.mktemp("other")
    shard(other, 0, ["0"], [record("0")], pa.schema([("url", pa.string()), ("caption", pa.string())]))
    with pytest.raises(SourceError, match="has no column 'key'"):
        open_img2dataset(str(other))


def test_a_limit_leaves_later_shards_out(out):
    assert len(open_img2dataset(str(out), limit=2).files) == 1
    assert len(open_img2dataset(str(out), limit=4).files) == 2


def test_a_source_travels_to_another_process(out):
    source = pickle.loads(pickle.dumps(open_img2dataset(str(out))))
    assert [row.caption for row in source.read(1)] == ["c000010000"]
