"""A curated set as a source: keys and columns kept; and every kind of source from its specification."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.manifest import ManifestSource, open_manifest
from curation.sources.open import CapturedSource, TableSource, open_source
from schemas.errors import InputError, SourceError
from schemas.manifest import Manifest, ShardEntry
from schemas.pipeline import Source
from schemas.shard import ShardWriter

KEYS = [f"{i:032x}" for i in range(5)]
VERSION = "0123456789abcdef"


def table(keys: list[str]) -> pa.Table:
    numbers = [int(key, 16) for key in keys]
    return pa.table(
        {
            "key": keys,
            "url": [f"http://x/{i}" for i in numbers],
            "caption": [f"c{i}" for i in numbers],
            "phash": pa.array(numbers, pa.uint64()),
            "tags": [["a"] for _ in numbers],
            "clip_image": pa.array([[0.5, 1.0] for _ in numbers], pa.list_(pa.float16())),
        }
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def curated(root: Path, pictures: bool = True, keys_in_tar: list[str] = KEYS) -> str:
    """A curated set of two shards."""
    (root / VERSION).mkdir(parents=True)
    entries = []
    for number, keys in enumerate((KEYS[:3], KEYS[3:])):
        parquet, tar = (root / VERSION / f"shard-{number:06d}.{suffix}" for suffix in ("parquet", "tar"))
        pq.write_table(table(keys), parquet)
        if pictures:
            with open(tar, "wb") as stream, ShardWriter(stream) as writer:
                for key in keys_in_tar[number * 3 : number * 3 + len(keys)]:
                    writer.add(key, {"jpg": f"picture {key}".encode(), "txt": b"another caption"})
        entries.append(
            ShardEntry(
                tar=f"{VERSION}/{tar.name}" if pictures else None,
                parquet=f"{VERSION}/{parquet.name}",
                rows=len(keys),
                tar_sha256=sha256(tar) if pictures else None,
                parquet_sha256=sha256(parquet),
                tar_bytes=tar.stat().st_size if pictures else None,
                parquet_bytes=parquet.stat().st_size,
            )
        )
    empty = {"columns": (), "samples": (), "funnel": (), "spec": {}, "operators": {}}
    manifest = Manifest(name="demo", version=VERSION, rows=5, pool=9, shards=tuple(entries), **empty)
    for name in ("manifest.json", f"{VERSION}.json"):
        (root / name).write_text(manifest.model_dump_json())
    return str(root)


def query(source) -> list[dict]:
    with duckdb.connect() as connection:
        return connection.sql(source.relation(connection)).to_arrow_table().to_pylist()


def test_the_relation_gives_keys_and_all_columns_but_embeddings(tmp_path):
    source = open_manifest(curated(tmp_path / "demo"))
    assert source.extra == {"phash": pa.uint64(), "tags": pa.list_(pa.field("l", pa.string()))}
    rows = query(source)
    assert [row["key"] for row in rows] == KEYS
    assert rows[4] == {"key": KEYS[4], "url": "http://x/4", "caption": "c4", "phash": 4, "tags": ["a"]}


def test_pictures_come_with_their_own_keys(tmp_path):
    source = open_manifest(curated(tmp_path / "demo"))
    rows = [row for index in range(len(source.files)) for row in source.read(index)]
    assert [row.key for row in rows] == KEYS
    assert [row.picture for row in rows] == [f"picture {key}".encode() for key in KEYS]
    assert (rows[3].caption, rows[3].url, rows[3].extra) == ("c3", "http://x/3", {"phash": 3, "tags": ["a"]})
    assert rows[3].origin == f"shard-000001.tar:{KEYS[3]}"


def test_a_set_is_named_by_folder_file_or_version(tmp_path):
    folder = curated(tmp_path / "demo")
    files = open_manifest(folder).files
    assert [open_manifest(name).files for name in (f"{folder}/manifest.json", f"{folder}@{VERSION}")] == [files, files]


def test_a_set_without_pictures_is_a_table(tmp_path):
    source = open_manifest(curated(tmp_path / "demo", pictures=False), limit=4)
    assert isinstance(source, TableSource)
    assert query(source) == [
        {n: v for n, v in row.items() if n not in ("key", "clip_image")} for row in table(KEYS).to_pylist()[:4]
    ]


def test_a_limit_leaves_later_shards_out(tmp_path):
    source = open_manifest(curated(tmp_path / "demo"), limit=2)
    assert len(source.files) == 1
    assert [row["key"] for row in query(source)] == KEYS[:2]


def test_damage_is_refused(tmp_path):
    folder = Path(curated(tmp_path / "demo"))
    tar = folder / VERSION / "shard-000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match="the manifest says"):
        open_manifest(str(folder))
    tar.write_bytes(whole[:-1024] + b"x" * 1024)
    with pytest.raises(SourceError, match="check the set with pairmill verify"):
        list(open_manifest(str(folder)).read(1))
    tar.unlink()
    with pytest.raises(SourceError, match="is not there"):
        open_manifest(str(folder))
    with pytest.raises(InputError, match="there is no folder"):
        open_manifest(str(tmp_path / "demi"))


@pytest.mark.parametrize("keys_in_tar", [[*KEYS[:2], "f" * 32, *KEYS[3:]], [KEYS[1], KEYS[0], *KEYS[2:]]])
def test_tar_and_parquet_that_disagree_are_refused(tmp_path, keys_in_tar):
    source = open_manifest(curated(tmp_path / "demo", keys_in_tar=keys_in_tar))
    with pytest.raises(SourceError, match="in its place"):
        list(source.read(0))


def test_a_tar_with_fewer_rows_than_its_parquet_is_refused(tmp_path):
    source = open_manifest(curated(tmp_path / "demo", keys_in_tar=KEYS[:4]))
    with pytest.raises(SourceError, match="fewer rows"):
        list(source.read(1))


def test_a_caption_cannot_be_mapped_because_keys_stay(tmp_path):
    folder = curated(tmp_path / "demo")
    with pytest.raises(SourceError, match="keeps its keys, so caption cannot be mapped from 'vlm_caption'"):
        open_manifest(folder, {"caption": "vlm_caption"})
    assert list(open_manifest(folder, {"hash": "phash"}).extra) == ["hash", "tags"]


def test_every_kind_is_opened_from_its_specification(tmp_path):
    pq.write_table(table(KEYS).select(["url", "caption"]), tmp_path / "pairs.parquet")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"A")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"A"))
    shard = {"url": ["u"], "caption": ["c"], "key": ["0"], "status": ["success"], "error_message": pa.nulls(1)}
    pq.write_table(pa.table(shard), tmp_path / "0.parquet")
    kinds = {
        "table": tmp_path / "pairs.parquet",
        "manifest": curated(tmp_path / "demo"),
        "webdataset": tmp_path / "0.tar",
        "folder": tmp_path / "photos",
        "img2dataset": tmp_path / "0.tar",
    }
    for kind, path in kinds.items():
        source = pickle.loads(pickle.dumps(open_source(Source(**{kind: str(path)}), limit=3)))
        assert isinstance(source, CapturedSource) == (kind != "table")
        assert isinstance(source, ManifestSource) == (kind == "manifest")
        assert source.files
