"""The main job in process: a web, a specification, curated shards, and what a second run costs."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SmallWeb, run_job, textured_jpeg, write_table

from schemas.errors import InputError
from schemas.manifest import read_manifest
from schemas.shard import read_shard

HERE = {"allow_networks": ["127.0.0.0/8"], "isolate": False}  # a decoder of its own takes most of a second to start
DOWNLOAD = {"download": {"shortest_side_px": 64, "retries": 0, "timeout_s": 5, **HERE}}


@pytest.fixture
def pairs(web: SmallWeb, tmp_path):
    """Twelve good pictures, a near duplicate, a dead link, HTML in place of a picture, a row without a URL."""
    rows = [
        {"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"picture number {i}", "uid": i} for i in range(12)
    ]
    rows.append({"url": web.put("/again.jpg", textured_jpeg(3, 192, 160)), "caption": "number 3 again", "uid": 12})
    rows.append({"url": f"{web.base_url}/dead.jpg", "caption": "a dead link", "uid": 13})
    rows.append({"url": web.put("/html.jpg", b"<html>no picture</html>"), "caption": "broken", "uid": 14})
    rows.append({"url": None, "caption": "no address", "uid": 15})
    return rows


def spec_over(tmp_path, rows, steps, **more):
    table = write_table(tmp_path / f"pairs{len(rows)}.parquet", rows)
    source = {"table": table, "rows_per_part": more.pop("rows_per_part", 5)}
    return {"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": steps} | more


STEPS = [
    {"keep": "length(caption) >= 3"},
    DOWNLOAD,
    "inspect_image",
    {"image_hash": {"kind": "phash"}},
    {"dedup": {"by": "phash", "within": 4, "prefer": ["original_width_px desc"]}},
]


def fates(result):
    manifest = read_manifest(result.manifest)
    (sample,) = manifest.samples
    return {row["uid"]: row for row in pq.read_table(result.manifest.parent / sample.parquet).to_pylist()}


def test_every_row_has_one_fate_and_the_funnel_sums_to_the_pool(web, tmp_path, pairs):
    result = run_job(spec_over(tmp_path, pairs, STEPS))
    by_uid = fates(result)
    assert len(by_uid) == 16
    assert [by_uid[i]["fate"] for i in (3, 12, 13, 14, 15)] == ["dropped", "curated", "failed", "failed", "failed"]
    assert by_uid[3]["duplicate_of"] == by_uid[12]["key"]
    assert by_uid[3]["fate_step"] == "steps[4] dedup"
    assert by_uid[13]["fate_reason"].startswith(by_uid[13]["status"])
    assert by_uid[15]["fate_step"] == "source"
    lost = sum(entry["rows_in"] - entry["rows_out"] for entry in result.funnel[1:])
    assert (result.pool, result.curated, lost) == (16, 12, 3)
    (download,) = [entry for entry in result.funnel if entry["kind"] == "download"]
    assert download["reason"] == "http_404 1, not_an_image 1"


def test_shards_hold_the_rows_in_the_same_order_in_tar_and_parquet(web, tmp_path, pairs):
    result = run_job(spec_over(tmp_path, pairs, STEPS, shards={"rows": 5, "seed": 1}))
    manifest = read_manifest(result.manifest)
    assert [shard.rows for shard in manifest.shards] == [5, 5, 2]
    for shard in manifest.shards:
        table = pq.read_table(result.manifest.parent / shard.parquet)
        samples = list(read_shard(result.manifest.parent / shard.tar))
        assert [sample.key for sample in samples] == table["key"].to_pylist()
        assert [sample.members["txt"].decode() for sample in samples] == table["caption"].to_pylist()
        assert [json.loads(sample.members["json"])["phash"] for sample in samples] == table["phash"].to_pylist()
        with tarfile.open(result.manifest.parent / shard.tar) as tar:
            assert len(tar.getnames()) == 3 * shard.rows


def test_a_second_run_fetches_nothing_and_gives_the_same_version(web, tmp_path, pairs):
    spec = spec_over(tmp_path, pairs, STEPS)
    first = run_job(spec)
    asked = web.asked.copy()
    assert run_job(spec) == first
    assert web.asked == asked


def test_the_bytes_do_not_depend_on_parts_or_executor(web, tmp_path, pairs):
    versions = set()
    for i, (rows_per_part, debug) in enumerate([(3, True), (100, True), (5, False)]):
        folder = tmp_path / str(i)
        folder.mkdir()
        result = run_job(spec_over(folder, pairs, STEPS, rows_per_part=rows_per_part), debug=debug)
        versions.add((result.version, result.manifest.read_bytes()))
    assert len(versions) == 1


def test_a_changed_filter_recomputes_no_signal_and_a_looser_one_only_what_is_missing(web, tmp_path, pairs):
    tight = [{"keep": "uid < 4"}, *STEPS[1:]]
    run_job(spec_over(tmp_path, pairs, tight))
    assert sum(web.asked.values()) == 4
    run_job(spec_over(tmp_path, pairs, STEPS))
    assert all(count == 1 for count in web.asked.values())
    assert sum(web.asked.values()) == 15


def test_a_known_url_with_a_new_caption_is_not_fetched_again(web, tmp_path, pairs):
    run_job(spec_over(tmp_path, pairs, STEPS))
    before = web.asked.copy()
    more = [*pairs, {"url": pairs[0]["url"], "caption": "another caption", "uid": 99}]
    steps = [*STEPS[:4]]
    result = run_job(spec_over(tmp_path, more, steps))
    assert web.asked == before
    assert fates(result)[99]["fate"] == "curated"


def test_a_url_is_not_fetched_again_whichever_of_its_captions_had_it_fetched(web, tmp_path):
    urls = [web.put(f"/{i}.jpg", textured_jpeg(i)) for i in range(4)]
    worded = {"keep": "length(caption) >= 3"}
    for caption in ("a", "first long", "second long"):  # the pool's first row of each URL is filtered
        rows = [{"url": url, "caption": caption, "uid": 0} for url in urls]
        run_job(spec_over(tmp_path, rows, [worded, DOWNLOAD]) | {"name": caption.split()[0]})
    assert sum(web.asked.values()) == 4


def test_a_looser_filter_brings_a_second_caption_without_a_second_fetch(web, tmp_path):
    url = web.put("/one.jpg", textured_jpeg(1))
    rows = [{"url": url, "caption": caption, "uid": 0} for caption in ("long enough", "short")]
    assert run_job(spec_over(tmp_path, rows, [{"keep": "length(caption) > 5"}, DOWNLOAD])).curated == 1
    assert run_job(spec_over(tmp_path, rows, [DOWNLOAD])).curated == 2
    assert web.asked["/one.jpg"] == 1


def test_several_captions_of_one_url_cost_one_fetch(web, tmp_path):
    url = web.put("/one.jpg", textured_jpeg(1))
    rows = [{"url": url, "caption": f"caption {i}", "uid": i} for i in range(5)]
    result = run_job(spec_over(tmp_path, rows, [DOWNLOAD], rows_per_part=2))
    assert (result.curated, web.asked["/one.jpg"]) == (5, 1)


def test_retry_failed_tries_only_what_may_pass_and_fills_it(web, tmp_path, pairs):
    from curation.job import Wishes

    web.put("/5.jpg", b"later", 503)
    spec = spec_over(tmp_path, pairs, STEPS)
    first = run_job(spec)
    assert fates(first)[5]["fate"] == "failed"
    web.put("/5.jpg", textured_jpeg(5))
    before = web.asked.copy()
    assert run_job(spec).version == first.version
    assert web.asked == before
    second = run_job(spec, Wishes(retry=()))
    assert fates(second)[5]["fate"] == "curated"
    assert web.asked - before == {"/5.jpg": 1}
    assert run_job(spec).version == second.version


def test_a_radius_with_chance_neighbours_is_refused_before_the_source_is_in_the_pool(tmp_path):
    rows = [{"url": f"http://nowhere/{i}", "caption": f"c{i}", "code": i} for i in range(3000)]
    table = pa.Table.from_pylist(rows).set_column(2, "code", pa.array(range(3000), pa.uint64()))
    pq.write_table(table, tmp_path / "t.parquet")
    spec = spec_over(tmp_path, rows[:1], [{"dedup": {"by": "code", "within": 16}}], shards={"format": "parquet"})
    with pytest.raises(InputError, match=r"steps\[0\] dedup: within: 16 over 3,000 rows: .*the largest safe radius is"):
        run_job(spec | {"source": {"table": str(tmp_path / "t.parquet")}})
    assert not (tmp_path / "store" / "pool").exists()


def test_a_manifest_tells_its_lineage_and_which_columns_its_shards_have(web, tmp_path, pairs):
    result = run_job(spec_over(tmp_path, pairs, STEPS, shards={"columns": ["uid"]}))
    manifest = read_manifest(result.manifest)
    assert {column.name for column in manifest.columns if column.in_shards} == {"key", "url", "caption", "uid"}
    assert manifest.lineage.source["kind"] == "table"
    assert [len(sha256) for _, sha256 in manifest.lineage.source["files"]] == [64]


def test_holdout_rows_stand_in_shards_of_their_own(web, tmp_path, pairs):
    result = run_job(spec_over(tmp_path, pairs, STEPS, shards={"rows": 5, "holdout": {"rows": 3}}))
    shards = read_manifest(result.manifest).shards
    assert [(shard.rows, shard.holdout) for shard in shards] == [(5, False), (4, False), (3, True)]


def test_a_set_of_metadata_needs_no_pictures(tmp_path):
    rows = [{"url": f"http://nowhere/{i}", "caption": f"c{i}", "uid": i, "clip_score": i / 10} for i in range(10)]
    steps = [{"top": {"by": "clip_score", "fraction": 0.3}}]
    result = run_job(spec_over(tmp_path, rows, steps, shards={"format": "parquet"}))
    assert {row["uid"] for row in fates(result).values() if row["fate"] == "curated"} == {7, 8, 9}
