"""Pictures of a version's rows by key: kept or dropped, fetched or captured, checked against what was stored."""

import hashlib
import io
from pathlib import Path

import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from PIL import Image

from curation.analytics.query import connect
from curation.analytics.thumbnails import Pictures, thumbnail
from curation.storage.store import Store
from curation.versions import Chosen, resolve

_DOWNLOAD = {"allow_networks": ["127.0.0.0/8"], "retries": 0, "isolate": False}


def _pairs(web: SmallWeb) -> list[dict]:
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i, 300, 200)), "caption": f"picture {i}"} for i in range(6)]
    rows.append({"url": f"{web.base_url}/dead.jpg", "caption": "dead"})
    return [row | {"mirror": row["url"]} for row in rows]


def _opened(spec: dict) -> tuple[Store, Chosen, dict[str, str]]:
    """The store, its only version, and the key of each caption."""
    store = Store(spec["store"])
    run_job(spec)
    with connect(store.root) as connection:
        keys = dict(connection.execute("SELECT caption, key FROM samples").fetchall())
    return store, resolve(store), keys


def _spec(tmp_path: Path, web: SmallWeb, *steps: object) -> dict:
    source = {"table": write_table(tmp_path / "pairs.parquet", _pairs(web)), "rows_per_part": 3}
    return {"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": list(steps)}


def test_pictures_of_dropped_rows_are_found_and_of_failed_ones_are_none(web, tmp_path):
    steps = [{"download": _DOWNLOAD}, {"keep": "caption = 'picture 2'"}]
    store, chosen, keys = _opened(_spec(tmp_path, web, *steps))
    assert chosen.manifest.rows == 1
    found = Pictures(store, chosen).stored([*keys.values(), "no such key"])
    assert found == dict.fromkeys(found) | {keys[f"picture {i}"]: textured_jpeg(i, 300, 200) for i in range(6)}


def test_pictures_are_found_where_the_fingerprint_rides_on_a_column_of_the_source(web, tmp_path):
    step = {"download": _DOWNLOAD, "reads": {"url": "mirror"}}
    store, chosen, keys = _opened(_spec(tmp_path, web, step))
    found = Pictures(store, chosen).stored(keys.values())
    assert found[keys["picture 4"]] == textured_jpeg(4, 300, 200)


def test_pictures_that_came_with_the_source_are_found(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(textured_jpeg(i))
        (folder / f"{i}.txt").write_text(f"picture {i}")
    spec = {"name": "set", "store": str(tmp_path / "store"), "source": {"folder": str(folder)}}
    store, chosen, keys = _opened(spec | {"steps": [{"keep": "caption = 'picture 1'"}]})
    assert Pictures(store, chosen).stored([keys["picture 2"]]) == {keys["picture 2"]: textured_jpeg(2)}


def test_a_picture_that_is_not_what_was_stored_is_none(web, tmp_path):
    store, chosen, keys = _opened(_spec(tmp_path, web, {"download": _DOWNLOAD}))
    tars = sorted(store.path("blobs").rglob("*.tar"))
    damaged = [tar for tar in tars if textured_jpeg(0, 300, 200) in tar.read_bytes()]
    for tar in damaged:  # those of the pool and of the shards
        tar.write_bytes(tar.read_bytes().replace(textured_jpeg(0, 300, 200)[200:220], bytes(20)))
    gone = next(tar for tar in tars if textured_jpeg(5, 300, 200) in tar.read_bytes())
    found = Pictures(store, chosen).stored(keys.values())
    assert damaged
    assert found[keys["picture 0"]] is None
    for tar in tars:
        tar.unlink()
    assert set(Pictures(store, chosen).stored(keys.values()).values()) == {None}
    assert not gone.exists()


def test_a_set_without_pictures_has_none(tmp_path):
    rows = [{"url": "http://h.example/1.jpg", "caption": "one"}]
    source = {"table": write_table(tmp_path / "pairs.parquet", rows)}
    spec = {"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": ["caption_stats"]}
    store, chosen, keys = _opened(spec | {"shards": {"format": "parquet"}})
    assert Pictures(store, chosen).thumbnails(keys.values(), 32) == {keys["one"]: None}


@pytest.mark.parametrize(("size", "expected"), [((300, 200), (96, 64)), ((40, 60), (40, 60)), ((1, 500), (1, 96))])
def test_a_thumbnail_is_a_jpeg_whose_longest_side_is_as_asked_and_that_is_never_enlarged(size, expected):
    for form in ("PNG", "JPEG", "WEBP"):
        out = io.BytesIO()
        Image.new("RGB", size, "red").save(out, form)
        made = thumbnail(out.getvalue(), 96)
        assert made is not None
        with Image.open(io.BytesIO(made)) as image:
            assert (image.format, image.size) == ("JPEG", expected)
    assert hashlib.sha256(made).digest() == hashlib.sha256(thumbnail(out.getvalue(), 96) or b"").digest()


def test_what_is_no_picture_has_no_thumbnail():
    assert thumbnail(b"\xff\xd8\xff no picture", 96) is None
