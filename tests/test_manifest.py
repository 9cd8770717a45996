"""The manifest: what it keeps, what it refuses, and how a set is found by its name."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.errors import InputError
from schemas.manifest import FORMAT, Manifest, find_manifest, find_manifests, newest_version, read_manifest

SHA256 = "a" * 64


def record(**changes: Any) -> dict[str, Any]:
    """A manifest of two shards, one of them held out."""
    shards = [
        {"tar": f"v1/{name}.tar", "parquet": f"v1/{name}.parquet", "rows": rows, "tar_sha256": SHA256,
         "parquet_sha256": SHA256, "tar_bytes": 10, "parquet_bytes": 20, "holdout": name == "holdout-000000"}
        for name, rows in (("shard-000000", 3), ("holdout-000000", 2))
    ]  # fmt: skip
    whole = {
        "format": FORMAT, "name": "demo", "version": "v1", "rows": 5, "pool": 9, "shards": shards,
        "columns": [{"name": "key", "type": "string", "meaning": "the row's name"}],
        "samples": [{"parquet": "v1/samples-000000.parquet", "rows": 9, "parquet_sha256": SHA256, "parquet_bytes": 7}],
        "funnel": [{"step": "source", "kind": "source", "rows_in": 9, "rows_out": 9}],
        "spec": {"steps": ["language"]}, "operators": {"steps[0] language": "f"},
    }  # fmt: skip
    return whole | changes


def shard(**changes: Any) -> dict[str, Any]:
    """A manifest whose first shard is changed."""
    whole = record()
    whole["shards"][0] |= changes
    return whole


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(record())
    path = tmp_path / "v1.json"
    path.write_text(manifest.model_dump_json())
    assert read_manifest(path) == manifest
    assert manifest.evaluations == ()


def test_rows_held_out_are_kept_apart_from_those_to_train_on() -> None:
    manifest = Manifest.model_validate(record())
    assert [s.rows for s in manifest.training_shards] == [3]
    assert [s.rows for s in manifest.holdout_shards] == [2]


def test_a_manifest_is_not_changed_after_it_was_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Manifest.model_validate(record()).rows = 6  # type: ignore[misc]


def test_a_set_without_pictures_has_no_tars() -> None:
    manifest = Manifest.model_validate(shard(tar=None, tar_sha256=None, tar_bytes=None))
    assert manifest.shards[0].tar is None


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/shard.tar", "v1/../../x.tar", "", "v1/a\0.tar"])
def test_a_path_out_of_the_manifests_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"shards\.0\.tar: .*does not lie in the manifest's folder"):
        read_manifest(put(tmp_path / "m.json", shard(tar=path)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (record(rows=6), "its shards have 5 rows, it says 6"),
        (record(colour="red"), "colour: Extra inputs are not permitted"),
        (shard(tar_sha256=None), "tar, tar_sha256 and tar_bytes are given together or not at all"),
        (shard(parquet_sha256="abc"), "parquet_sha256"),
        (shard(rows=-3), "greater than or equal to 0"),
        ([1, 2], "is no manifest of a curated set"),
        ({"model_cfg": {}}, "is no manifest of a curated set"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_manifest(put(tmp_path / "m.json", value))


def test_a_newer_format_says_so_even_where_everything_else_changed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"has format {FORMAT + 1}, this program reads up to {FORMAT}; update it"):
        read_manifest(put(tmp_path / "m.json", {"format": FORMAT + 1, "pieces": []}))


def test_a_missing_or_broken_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file; a run writes it when it has finished"):
        read_manifest(tmp_path / "m.json")
    (tmp_path / "m.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "m.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path)


@pytest.fixture
def curated(tmp_path: Path) -> Path:
    """A folder `curated` with the sets demo (two versions, the newest v2) and other."""
    for name, versions in (("demo", ("v1", "v2")), ("other", ("v1",))):
        for version in versions:
            put(tmp_path / "curated" / name / f"{version}.json", record(name=name, version=version))
            (tmp_path / "curated" / name / version).mkdir()
        put(tmp_path / "curated" / name / "manifest.json", record(name=name, version=versions[-1]))
    return tmp_path / "curated"


def test_a_set_is_found_by_folder_by_file_and_by_version(curated: Path) -> None:
    demo = curated / "demo"
    assert find_manifest(str(demo)) == demo / "manifest.json"
    assert find_manifest(str(demo / "v1.json")) == demo / "v1.json"
    assert find_manifest(f"{demo}@v1") == demo / "v1.json"


def test_an_at_sign_in_a_folders_name_is_no_version(curated: Path) -> None:
    (curated / "demo").rename(curated / "me@home")
    assert find_manifest(f"{curated}/me@home") == curated / "me@home" / "manifest.json"
    assert find_manifest(f"{curated}/me@home@v1") == curated / "me@home" / "v1.json"


def test_a_set_that_is_not_there_is_told_with_what_is(curated: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*curated/dem;.*did you mean .*curated/demo\?"):
        find_manifest(f"{curated}/dem")
    with pytest.raises(InputError, match=r"there is no v3\.json in .*; it has the versions v1, v2"):
        find_manifest(f"{curated}/demo@v3")
    (curated / "empty").mkdir()
    with pytest.raises(InputError, match="it has no finished version"):
        find_manifest(f"{curated}/empty")


def test_a_glob_stands_for_every_set_it_matches(curated: Path) -> None:
    (curated / "notes").mkdir()  # no set
    found = find_manifests(f"{curated}/*")
    assert found == [curated / "demo" / "manifest.json", curated / "other" / "manifest.json"]
    assert find_manifests(f"{curated}/other@v1") == [curated / "other" / "v1.json"]
    with pytest.raises(InputError, match="nothing matches"):
        find_manifests(f"{curated}/x*")


def test_what_was_read_is_recorded_by_its_version(curated: Path) -> None:
    assert newest_version(curated / "demo" / "manifest.json") == curated / "demo" / "v2.json"
    assert newest_version(curated / "demo" / "v1.json") == curated / "demo" / "v1.json"
