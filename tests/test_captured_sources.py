"""Sources that bring their pictures, from the file to the curated set."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Silent, run_job, textured_jpeg, write_table
from PIL import Image

from curation.execution.in_process import InProcess
from curation.job import Job
from curation.prune import prune
from schemas.errors import InputError, RunError
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec
from schemas.shard import read_shard

STEPS = ["inspect_image", {"image_hash": {"kind": "phash"}}, {"dedup": {"by": "phash", "within": 4}}]


def spec_over(tmp_path: Path, source: dict, steps: list = STEPS, name: str = "set") -> dict:
    return {"name": name, "store": str(tmp_path / "store"), "source": source, "steps": steps, "shards": {"rows": 3}}


def samples_of(result) -> list[dict]:
    manifest = read_manifest(result.manifest)
    return [row for s in manifest.samples for row in pq.read_table(result.manifest.parent / s.parquet).to_pylist()]


def photos(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(textured_jpeg(i))
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


def foreign_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_of_pictures_becomes_a_curated_set(tmp_path):
    folder = photos(tmp_path / "photos")
    (folder / "copy.jpg").write_bytes(textured_jpeg(2, 192, 160))
    (folder / "copy.txt").write_text("the same again")
    (folder / "broken.jpg").write_bytes(textured_jpeg(9)[:400])
    (folder / "broken.txt").write_text("cut short")
    result = run_job(spec_over(tmp_path, {"folder": str(folder)}))
    fates = {row["caption"]: row["fate"] for row in samples_of(result)}
    assert fates["cut short"] == "failed"
    assert sorted([fates["picture 2"], fates["the same again"]]) == ["curated", "dropped"]
    assert result.curated == 6
    texts = [s.members["txt"] for shard in read_manifest(result.manifest).shards
             for s in read_shard(result.manifest.parent / shard.tar)]  # fmt: skip
    assert len(texts) == 6


def test_pictures_are_read_once(tmp_path):
    folder = photos(tmp_path / "photos")
    spec = spec_over(tmp_path, {"folder": str(folder)})
    first = run_job(spec)

    class NoWorkers:
        def __call__(self):
            raise AssertionError("nothing is left for a worker")

    job = Job.open(CurationSpec.model_validate(spec), Silent())
    job.start(NoWorkers())
    assert job.advance()
    assert job.finish() == first


def test_anybodys_webdataset_is_read_and_what_is_wrong_with_a_row_is_said(tmp_path):
    members = {}
    for i in range(4):
        members[f"pair{i}.jpg"] = textured_jpeg(i)
        members[f"pair{i}.json"] = json.dumps({"caption": f"picture {i}", "score": i / 2}).encode()
    members["lonely.jpg"] = b"no picture at all"
    members["lonely.json"] = json.dumps({"caption": "junk", "score": 9.0}).encode()
    tar = foreign_tar(tmp_path / "a.tar", members)
    steps = [{"keep": "score >= 0.5"}, *STEPS]
    result = run_job(spec_over(tmp_path, {"webdataset": str(tar)}, steps))
    by_caption = {row["caption"]: row for row in samples_of(result)}
    assert {caption: row["fate"] for caption, row in by_caption.items()} == {
        "picture 0": "dropped",
        "picture 1": "curated",
        "picture 2": "curated",
        "picture 3": "curated",
        "junk": "failed",
    }
    assert by_caption["junk"]["fate_step"] == "source"
    assert by_caption["junk"]["fate_reason"].startswith("not_an_image: a.tar:lonely: the 17 bytes are no picture")


def test_a_picture_that_fails_at_its_source_is_named_by_its_file_once(tmp_path):
    folder = photos(tmp_path / "photos", 1)
    (folder / "scans").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "scans" / "old.bmp")
    (folder / "scans" / "old.txt").write_text("old")
    (folder / "captions.json.jpg").write_bytes(textured_jpeg(1))
    (folder / "captions.json.json").write_text("{")
    reasons = sorted(row["fate_reason"] for row in samples_of(run_job(spec_over(tmp_path, {"folder": str(folder)})))
                     if row["fate"] == "failed")  # fmt: skip
    assert [reason.split(": ")[:2] for reason in reasons] == [
        ["broken_json", "captions.json.jpg"],
        ["not_an_image", "scans/old.bmp"],
    ]
    assert all(reason.count("captions.json.jpg") < 2 for reason in reasons)


def test_a_curated_set_as_a_source_keeps_its_keys_and_captures_nothing_twice(tmp_path):
    folder = photos(tmp_path / "photos")
    first = run_job(spec_over(tmp_path, {"folder": str(folder)}))
    source = {"manifest": str(first.manifest.parent)}
    second = run_job(spec_over(tmp_path, source, ["caption_stats", {"keep": "caption like '%3'"}], name="second"))
    (row,) = [row for row in samples_of(second) if row["fate"] == "curated"]
    assert row["caption"] == "picture 3"
    assert row["key"] in {row["key"] for row in samples_of(first)}


def test_against_drops_what_another_set_has_and_names_it(tmp_path):
    first = run_job(spec_over(tmp_path, {"folder": str(photos(tmp_path / "first", 3))}))
    folder = photos(tmp_path / "second", 5)
    for i in range(5):
        (folder / f"{i}.txt").write_text(f"other words {i}")
    against = {"dedup": {"by": "phash", "within": 4, "against": str(first.manifest)}}
    second = run_job(spec_over(tmp_path, {"folder": str(folder)}, [*STEPS[:2], against], name="second"))
    rows = {row["caption"]: row for row in samples_of(second)}
    assert [rows[f"other words {i}"]["fate"] for i in range(5)] == ["dropped"] * 3 + ["curated"] * 2
    firsts = {row["caption"]: row["key"] for row in samples_of(first)}
    assert rows["other words 1"]["duplicate_of"] == firsts["picture 1"]
    run_job(spec_over(tmp_path, {"folder": str(tmp_path / "first")}, [*STEPS, {"keep": "caption like '%1'"}]))
    kept = prune(tmp_path / "store", remove=True).kept
    assert kept[f"set@{first.version}"].startswith("used by the set second, which is compared against it")


def test_hashes_made_otherwise_are_not_compared_unless_they_are_declared_equal(tmp_path):
    first = run_job(spec_over(tmp_path, {"folder": str(photos(tmp_path / "first", 3))}))
    dedup = {"by": "phash", "within": 4, "against": str(first.manifest)}
    steps = [{"image_hash": {"kind": "dhash"}}, {"derive": {"phash": "dhash"}}]
    source = {"folder": str(photos(tmp_path / "second", 3))}
    with pytest.raises(InputError, match=r"column 'phash' comes from .* there, by another operator"):
        run_job(spec_over(tmp_path, source, [*steps, {"dedup": dedup}], name="second"))
    run_job(spec_over(tmp_path, source, [*steps, {"dedup": dedup | {"assume_equal": True}}], name="second"))


def test_the_other_set_is_the_one_that_was_there_when_the_run_began(tmp_path):
    photos(tmp_path / "first", 3)
    first = run_job(spec_over(tmp_path, {"folder": str(tmp_path / "first")}))
    table = tmp_path / "codes.parquet"
    pq.write_table(pq.read_table(first.manifest.parent / first.version / "shard-000000.parquet"), table)
    for against, changed in ((str(first.manifest), False), (str(table), True)):
        step = {"dedup": {"by": "phash", "within": 4, "against": against}}
        spec = spec_over(
            tmp_path, {"folder": str(tmp_path / "first")}, [*STEPS[:2], step], name="changed" if changed else "second"
        )
        job = Job.open(CurationSpec.model_validate(spec), Silent())
        run_job(spec_over(tmp_path, {"folder": str(tmp_path / "first")}, [*STEPS[:2], {"keep": "caption like '%1'"}]))
        pq.write_table(pq.read_table(table).slice(1), table)
        job.start(lambda: InProcess(debug=True))
        if changed:
            with pytest.raises(RunError, match="has changed since the run began"):
                job.advance()
        else:
            assert job.advance()
            assert job.run.fates.alive == 0


def test_marks_combine_selections(tmp_path):
    rows = [{"url": f"http://x/{i}", "caption": f"c{i}", "a": float(i), "b": float(-i)} for i in range(10)]
    table = write_table(tmp_path / "t.parquet", rows)
    steps = [
        {"top": {"by": "a", "rows": 6, "mark": "high_a"}},
        {"top": {"by": "b", "rows": 6, "mark": "high_b"}},
        {"keep": "high_a and high_b"},
    ]
    spec = spec_over(tmp_path, {"table": table}, steps) | {"shards": {"format": "parquet"}}
    result = run_job(spec)
    assert {row["caption"] for row in samples_of(result) if row["fate"] == "curated"} == {"c4", "c5"}


def test_a_mark_is_null_where_no_row_came_to_it_whatever_the_parts(tmp_path):
    rows = [{"url": f"http://x/{i}", "caption": f"c{i}", "a": float(i)} for i in range(12)]
    table = write_table(tmp_path / "t.parquet", rows)
    steps = [
        {"keep": "a > 9"},
        {"top": {"by": "a", "rows": 1, "mark": "best"}},
        {"dedup": {"by": "a", "prefer": ["best desc"]}},
    ]
    versions = set()
    for size in (2, 100):
        source = {"table": table, "rows_per_part": size}
        spec = spec_over(tmp_path, source, steps) | {
            "shards": {"format": "parquet"},
            "store": str(tmp_path / str(size)),
        }
        result = run_job(spec)
        assert {row["caption"]: row["best"] for row in samples_of(result) if row["a"] > 8} == {
            "c9": None, "c10": False, "c11": True,
        }  # fmt: skip
        versions.add(result.version)
    assert len(versions) == 1


@pytest.mark.parametrize("survivors", ["components", "earlier", "greedy"])
def test_every_survivor_rule_gives_the_same_whatever_the_parts(tmp_path, survivors):
    chain = [{"url": f"http://x/{i}", "caption": f"c{i}", "code": (1 << (3 * i)) - 1, "rank": i} for i in range(12)]
    kept = set()
    for rows_per_part in (3, 100):
        folder = tmp_path / str(rows_per_part)
        folder.mkdir()
        import pyarrow as pa

        table = pa.Table.from_pylist(chain).cast(
            pa.schema([("url", pa.string()), ("caption", pa.string()), ("code", pa.uint64()), ("rank", pa.int64())])
        )
        pq.write_table(table, folder / "t.parquet")
        step = {"dedup": {"by": "code", "within": 3, "survivors": survivors, "prefer": ["rank"], "force": True}}
        source = {"table": str(folder / "t.parquet"), "rows_per_part": rows_per_part}
        result = run_job(spec_over(folder, source, [step]) | {"shards": {"format": "parquet"}})
        kept.add(tuple(sorted(row["caption"] for row in samples_of(result) if row["fate"] == "curated")))
    assert len(kept) == 1
    assert len(kept.pop()) == {"components": 1, "earlier": 1, "greedy": 6}[survivors]
