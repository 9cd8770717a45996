"""`verify` notices every kind of damage, and says which file or row it is."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import run_job, textured_jpeg, write_table
from small_store import LABELS, STEPS, add_version, key_of, manifest_path, new_store, pair, usual_pairs

from curation.storage.tables import write_parquet
from curation.verify import verify
from schemas.errors import InputError
from schemas.shard import ShardWriter, read_shard


class Made:
    """A version whose files can be tampered with: nothing in it is linked to the store's other files."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]], **change: Any) -> None:
        store = new_store(folder)
        self.path = manifest_path(store, add_version(store, rows, **change))
        self.folder = self.path.parent
        for path in self.folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                path.unlink()
                path.write_bytes(data)

    @property
    def record(self) -> dict[str, Any]:
        return json.loads(self.path.read_bytes())

    def edit(self, **change: Any) -> None:
        """Replace fields of the manifest."""
        self.path.write_text(json.dumps(self.record | change))

    def file(self, kind: str) -> Path:
        """The first file of a kind: samples, parquet or tar."""
        entry = self.record["samples" if kind == "samples" else "shards"][0]
        return self.folder / entry["tar" if kind == "tar" else "parquet"]

    def resign(self) -> None:
        """Give the manifest the lengths and digests of the files as they are."""
        record = self.record
        for entry in (*record["samples"], *record["shards"]):
            for name in ("tar", "parquet"):
                if name in entry:
                    data = (self.folder / entry[name]).read_bytes()
                    entry |= {f"{name}_bytes": len(data), f"{name}_sha256": hashlib.sha256(data).hexdigest()}
        self.path.write_text(json.dumps(record))

    def errors(self) -> str:
        report = verify(self.path)
        assert report.ok == (report.exit_code == 0) == (not report.errors)
        return "\n".join(report.errors)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path, usual_pairs())


def test_a_sound_version_has_no_errors_and_every_byte_is_read(made):
    told: list[tuple[int, int]] = []
    report = verify(made.path, lambda done, total: told.append((done, total)))
    assert report.errors == []
    assert (report.files, report.rows) == (5, 12)
    assert told[-1] == (report.bytes, report.bytes)
    assert "sound" in report.text()


def test_a_set_is_verified_by_its_folder_too(made):
    assert verify(made.folder).ok


def test_what_is_no_manifest_is_the_users_mistake(tmp_path, made):
    with pytest.raises(InputError, match="there is no such file"):
        verify(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="is no manifest"):
        verify(made.folder / made.record["version"] / "sizes.json")


def test_shards_with_other_columns_than_the_manifest_says_are_told(made):
    record = json.loads(made.path.read_text())
    record["columns"][0]["name"] = "another"
    made.path.write_text(json.dumps(record))
    assert any(
        "its columns are not those of the manifest (another, key)" in error for error in verify(made.path).errors
    )


@pytest.mark.parametrize("kind", ["samples", "parquet", "tar"])
def test_a_flipped_bit_is_noticed_wherever_it_is(made, kind):
    path = made.file(kind)
    sound = path.read_bytes()
    places = random.Random(0).sample(range(len(sound)), 12)
    for place in places:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert f"{path.name}: has SHA-256" in made.errors(), place
    path.write_bytes(sound)
    assert made.errors() == ""


@pytest.mark.parametrize("kind", ["samples", "parquet", "tar"])
@pytest.mark.parametrize("kept", [0, 1, 511, 1024, -1])
def test_a_file_that_was_cut_is_noticed(made, kind, kept):
    path = made.file(kind)
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path.name}: has {path.stat().st_size:,} bytes, the manifest says" in made.errors()


@pytest.mark.parametrize("kind", ["samples", "parquet", "tar"])
def test_a_missing_file_is_named(made, kind):
    made.file(kind).unlink()
    assert f"{made.file(kind).name}: cannot be read (No such file or directory)" in made.errors()


def rewritten_tar(made: Made, change) -> None:
    """Write the first tar anew from changed samples, with a manifest that agrees."""
    path = made.file("tar")
    samples = list(read_shard(path))
    with open(path, "wb") as stream, ShardWriter(stream) as tar:
        for sample in change(samples):
            tar.add(sample.key, sample.members)
    made.resign()


def test_a_tar_in_another_order_than_its_parquet_is_noticed(made):
    rewritten_tar(made, lambda samples: [samples[1], samples[0], *samples[2:]])
    assert "its keys are not those of" in made.errors()
    assert "first at row 0" in made.errors()


def test_a_tar_that_lacks_a_sample_is_noticed(made):
    rewritten_tar(made, lambda samples: samples[:-1])
    assert "3 instead of 4 keys" in made.errors()


def test_a_foreign_member_in_a_tar_is_noticed(made):
    path = made.file("tar")
    path.write_bytes(path.read_bytes().replace(b".jpg", b".exe", 1))
    made.resign()
    assert "shard-000000.tar" in made.errors()


def test_a_shard_with_a_row_that_is_not_curated_is_noticed(made):
    path = made.file("parquet")
    table = pq.read_table(path).to_pylist()
    table[0]["key"] = key_of(4)
    write_parquet(pq.read_table(path).from_pylist(table, schema=pq.read_schema(path)), path)
    made.resign()
    errors = made.errors()
    assert f"key {key_of(4)}: is curated 0 times in samples and stands 1 times in the shards" in errors
    assert "is curated 1 times in samples and stands 0 times in the shards" in errors
    assert "first at row 0" in errors


def test_a_shard_that_stands_twice_is_noticed(made):
    first = made.record["shards"][0]
    made.edit(shards=[*made.record["shards"], first], rows=made.record["rows"] + first["rows"])
    assert "stands 2 times in the shards" in made.errors()


def test_a_key_that_stands_twice_in_samples_is_noticed(tmp_path):
    assert f"key {key_of(4)} stands after {key_of(4)}" in Made(tmp_path, [*usual_pairs(), pair(4, 2)]).errors()


@pytest.mark.parametrize(
    "wrong",
    [
        {"fate": "lost", "fate_step": LABELS[2]},
        {"fate": None, "fate_step": None},
        {"fate": "dropped", "fate_step": ""},
        {"fate": "curated", "fate_step": LABELS[2]},
        {"fate": "dropped", "fate_step": "steps[9] keep"},
    ],
)
def test_a_row_without_one_sound_fate_is_noticed(tmp_path, wrong):
    rows = usual_pairs()
    rows[-2] |= wrong
    assert "which cannot be" in Made(tmp_path, rows).errors()


def test_counts_that_do_not_agree_are_noticed(made):
    record = made.record
    made.edit(pool=13)
    assert "samples: 12 rows have a fate, the manifest says the pool has 13" in made.errors()
    shards = [record["shards"][0] | {"rows": 3}, *record["shards"][1:]]
    made.edit(pool=12, rows=6, shards=shards)
    assert "samples: 7 rows are curated, the manifest says 6" in made.errors()
    assert "shard-000000.parquet: has 4 rows, the manifest says 3" in made.errors()
    made.edit(**record)
    funnel = record["funnel"]
    funnel[2]["rows_out"] += 1
    made.edit(funnel=funnel)
    assert f"funnel: {LABELS[1]}: says 11 in and 10 out, samples say 11 in and 9 out" in made.errors()


def test_sizes_json_must_agree(made):
    sizes = made.folder / made.record["version"] / "sizes.json"
    sizes.write_text("{}")
    assert "sizes.json: does not say the rows" in made.errors()
    sizes.unlink()
    assert "sizes.json: cannot be read" in made.errors()


def test_a_set_without_rows_is_sound(tmp_path):
    assert Made(tmp_path, [pair(4, 2)]).errors() == ""
    assert Made(tmp_path / "more", []).errors() == ""


def test_what_a_run_makes_is_sound(web, tmp_path):
    """The real thing: pictures fetched, one dead link, one row without a URL, held-out rows."""
    rows = [{"url": web.put(f"/{i}.jpg", textured_jpeg(i)), "caption": f"picture {i}"} for i in range(8)]
    rows += [{"url": f"{web.base_url}/dead.jpg", "caption": "dead"}, {"url": None, "caption": "nowhere"}]
    steps = [{"keep": "caption != 'picture 0'"}, {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0}}]
    source = {"table": write_table(tmp_path / "pairs.parquet", rows)}
    shards = {"rows": 3, "holdout": {"rows": 2}}
    spec = {"name": "real", "store": str(tmp_path / "store"), "source": source, "steps": steps, "shards": shards}
    report = verify(run_job(spec).manifest)
    assert report.errors == []
    assert report.rows == 10


def test_steps_of_the_fixture_are_those_of_its_labels():
    assert len(STEPS) == len(LABELS)
