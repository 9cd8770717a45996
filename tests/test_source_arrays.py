"""Embeddings in numpy files beside a table: every row has its vector, and what cannot fit is said before a run."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Silent, run_job
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.analytics.query import asked
from curation.job import Job, Wishes
from curation.registry import dataset_steps
from curation.selection.inputs import halves, is_vectors
from curation.sources.formats.numpy_array import describe_array
from curation.sources.open import TableWithArrays, open_source
from curation.sources.table import database
from curation.storage.store import Store
from schemas.errors import InputError, SourceError
from schemas.pipeline import CurationSpec, Source, spec_schema

WIDTH = 4


def key_of(url: str, caption: str) -> str:
    return hashlib.sha256(f"{url}\n{caption}".encode()).hexdigest()[:32]


def pairs(first: int, count: int) -> list[dict[str, Any]]:
    return [{"url": f"http://x/{i}.jpg", "caption": f"number {i}", "n": i} for i in range(first, first + count)]


def vectors(first: int, count: int, dtype: str = "<f4") -> np.ndarray:
    """The vector of row i begins with i, and no other number of the set is like its second."""
    rows_N = np.arange(first, first + count)
    noise_ND = np.random.default_rng(first).normal(size=(count, WIDTH))
    noise_ND[:, 0], noise_ND[:, 1] = rows_N, rows_N - 4
    return noise_ND.astype(dtype)


def write_rows(path: Path, rows: Sequence[dict[str, Any]], row_group_rows: int | None = None) -> None:
    """Write rows in the format that the suffix names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_rows)
        return
    out = io.StringIO(newline="")
    if ".jsonl" in path.name:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    path.write_bytes(gzip.compress(out.getvalue().encode()) if path.suffix == ".gz" else out.getvalue().encode())


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """DataComp's layout: two Parquet files of 7 and 5 rows, an npz with two arrays beside each."""
    folder = tmp_path / "meta"
    folder.mkdir()
    for stem, first, count in (("00a", 0, 7), ("00b", 7, 5)):
        write_rows(folder / f"{stem}.parquet", pairs(first, count))
        both = {"l14_img": vectors(first, count), "l14_txt": vectors(100 + first, count, "<f2")}
        np.savez(folder / f"{stem}.npz", **both)
    return folder


def spec(meta: Path, steps: Sequence[Any] = (), **source: Any) -> dict[str, Any]:
    arrays = {"l14_img": {"npz": f"{meta}/*.npz", "array": "l14_img", "model": "ViT-L-14/openai"}}
    return {
        "name": "set",
        "store": f"{meta.parent}/store",
        "source": {"table": f"{meta}/*.parquet", "arrays": arrays} | source,
        "steps": list(steps),
        "shards": {"format": "parquet"},
    }


def curated(made: Any) -> dict[str, dict[str, Any]]:
    """The rows of all shards by URL."""
    entries = json.loads(made.manifest.read_text())["shards"]
    tables = [pq.read_table(made.manifest.parent / entry["parquet"]) for entry in entries]
    return {row["url"]: row for table in tables for row in table.to_pylist()}


def digests(made: Any) -> list[str]:
    return [entry["parquet_sha256"] for entry in json.loads(made.manifest.read_text())["shards"]]


def refusal(meta: Path, **source: Any) -> str:
    """What the specification is refused with; the store must not be there then."""
    with pytest.raises(InputError) as caught:
        Job.open(CurationSpec.model_validate(spec(meta, **source)), Silent())
    assert not (meta.parent / "store").exists()
    return str(caught.value)


def snapshots(meta: Path) -> int:
    return len(list((meta.parent / "store" / "snapshots").iterdir()))


def test_a_step_and_a_shard_see_each_rows_own_vector(meta):
    made = run_job(spec(meta, [{"keep": "l14_img[1] > 2 and l14_img[2] < 6"}]))
    found = curated(made)
    assert sorted(row["n"] for row in found.values()) == [3, 4, 5, 6, 7, 8, 9]
    expected_ND = np.concatenate([vectors(0, 7), vectors(7, 5)]).astype(np.float16)
    for row in found.values():
        assert np.array_equal(np.array(row["l14_img"], np.float16), expected_ND[row["n"]])
    (column,) = [c for c in json.loads(made.manifest.read_text())["columns"] if c["name"] == "l14_img"]
    assert column["type"] == f"float16[{WIDTH}]"


def test_a_changed_threshold_reads_no_array_again(meta, monkeypatch):
    run_job(spec(meta, [{"keep": "l14_img[1] > 2"}]))
    monkeypatch.setattr(TableWithArrays, "relation", lambda *_: pytest.fail("the source was read again"))
    assert run_job(spec(meta, [{"keep": "l14_img[1] > 9"}])).curated == 2
    assert snapshots(meta) == 1


def test_shards_have_the_same_bytes_whatever_the_parts(meta):
    made = []
    for rows_per_part in (3, 100):
        asked_for = spec(meta, [{"keep": "l14_img[1] > 2"}], rows_per_part=rows_per_part)
        made.append(digests(run_job(asked_for | {"store": f"{meta.parent}/store{rows_per_part}"})))
    assert made[0] == made[1]


def test_the_order_in_which_a_specification_lists_arrays_does_not_show(meta):
    one, other = ({"npz": f"{meta}/*.npz", "array": array} for array in ("l14_img", "l14_txt"))
    made = []
    for store, arrays in (("a", {"v": one, "w": other}), ("b", {"w": other, "v": one})):
        made.append(digests(run_job(spec(meta, arrays=arrays) | {"store": f"{meta.parent}/{store}"})))
    assert made[0] == made[1]


@pytest.mark.parametrize("change", ["vector", "model", "nothing"])
def test_another_vector_or_model_is_another_snapshot(meta, change):
    run_job(spec(meta))
    again = spec(meta)
    if change == "vector":
        np.savez(meta / "00b.npz", l14_img=vectors(50, 5))
    elif change == "model":
        again["source"]["arrays"]["l14_img"]["model"] = "ViT-L-14/other"
    made = run_job(again)
    assert snapshots(meta) == (1 if change == "nothing" else 2)
    assert curated(made)["http://x/7.jpg"]["l14_img"][0] == (50 if change == "vector" else 7)


def test_a_table_without_arrays_keeps_the_snapshot_that_it_had(meta):
    record = spec(meta, arrays={})
    run_job(record)
    (name,) = (meta.parent / "store" / "snapshots").iterdir()
    assert "arrays" not in json.loads(name.read_text())["identity"]


def test_the_limit_takes_the_same_rows_with_their_vectors(meta):
    found = curated(run_job(spec(meta), Wishes(limit=9)))
    assert sorted((row["n"], row["l14_img"][0]) for row in found.values()) == [(i, i) for i in range(9)]


def test_several_columns_feed_an_operator_that_reads_embeddings(meta):
    arrays = {
        "clip_image": {"npz": f"{meta}/*.npz", "array": "l14_img"},
        "clip_text": {"npz": f"{meta}/*.npz", "array": "l14_txt"},
    }
    found = curated(run_job(spec(meta, ["clip_score"], arrays=arrays)))
    image_ND = np.concatenate([vectors(0, 7), vectors(7, 5)]).astype(np.float16).astype(float)
    text_ND = np.concatenate([vectors(100, 7, "<f2"), vectors(107, 5, "<f2")]).astype(float)
    lengths_N = np.linalg.norm(image_ND, axis=1) * np.linalg.norm(text_ND, axis=1)
    scores_N = (image_ND * text_ND).sum(1) / lengths_N
    assert {row["n"]: row["clip_score"] for row in found.values()} == pytest.approx(dict(enumerate(scores_N)), abs=1e-6)


def test_a_dataset_step_sees_the_vectors_as_they_are_stored(meta):
    job = Job.open(CurationSpec.model_validate(spec(meta)), Silent())
    kind = job.plan.columns["l14_img"].column
    assert is_vectors(kind.type)
    assert (kind.width, kind.is_embedding) == (WIDTH, True)


def test_sql_over_the_set_sees_floats(meta):
    run_job(spec(meta))
    text = "SELECT n, l14_img[1] AS first, typeof(l14_img) AS type FROM curated ORDER BY n"
    with asked(Store.existing(meta.parent / "store").root, text) as answer:
        assert answer.records() == [{"n": i, "first": float(i), "type": "FLOAT[]"} for i in range(12)]


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_keys_the_smallest_digest_of_the_vector_decides(tmp_path, order):
    rows = [{"url": "u", "caption": "c"}, {"url": "u", "caption": "c"}]
    both_ND = np.array([[1, 2], [3, 4]], np.float16)
    write_rows(tmp_path / "a.parquet", rows)
    np.save(tmp_path / "a.npy", both_ND[::order])
    source = {"table": f"{tmp_path}/a.parquet", "arrays": {"v": {"npy": f"{tmp_path}/a.npy"}}}
    made = run_job(
        {"name": "set", "store": f"{tmp_path}/store", "source": source, "shards": {"format": "parquet"}},
    )
    smallest = min(both_ND, key=lambda vector: hashlib.sha256(vector.tobytes()).hexdigest())
    assert curated(made)["u"]["v"] == smallest.tolist()


def test_rows_of_nan_stay_nan_and_are_no_more_than_any_number(meta):
    with_nan_ND = vectors(0, 7)
    with_nan_ND[3] = np.nan
    np.savez(meta / "00a.npz", l14_img=with_nan_ND)
    found = curated(run_job(spec(meta)))
    assert np.isnan(found["http://x/3.jpg"]["l14_img"]).all()
    assert sum(bool(np.isnan(row["l14_img"]).any()) for row in found.values()) == 1


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
def test_floats_of_any_width_and_byte_order_are_rounded_to_the_nearest_float16(meta, dtype):
    exact_ND = np.array([[1 / 3, 65504, 1 + 2**-11, -1e-8], [1 + 3 * 2**-11, np.inf, 0.1, -0.0]]).astype(dtype)
    write_rows(meta / "00a.parquet", pairs(0, 2))
    np.save(meta / "00a.npy", exact_ND)
    source = {"table": f"{meta}/00a.parquet", "arrays": {"v": {"npy": f"{meta}/00a.npy"}}}
    found = curated(run_job(spec(meta) | {"source": source}))
    stored_ND = np.array([found[f"http://x/{i}.jpg"]["v"] for i in range(2)], np.float16)
    assert stored_ND.tobytes() == exact_ND.astype("<f2").tobytes()


def test_a_number_beyond_float16_is_refused_and_no_row_is_taken_in(meta):
    large_ND = vectors(0, 7)
    large_ND[3, 2] = 1e5
    np.savez(meta / "00a.npz", l14_img=large_ND)
    with pytest.raises(SourceError, match=r"00a.npz: array 'l14_img' holds 100000, .* up to 65,504"):
        run_job(spec(meta))
    assert not (meta.parent / "store" / "pool").exists()
    assert list((meta.parent / "store" / "tmp").iterdir()) == []


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "csv.gz", "jsonl.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_keep_to_their_rows_in_files_of_many_batches_of_every_format(tmp_path, suffix, packed):
    rows = 30_000
    write_rows(tmp_path / f"a.{suffix}", pairs(0, rows), row_group_rows=1_000)
    numbers_ND = np.stack([np.arange(rows) // 2_000, np.arange(rows) % 2_000], axis=1).astype(np.float32)
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", v=numbers_ND)
    arrays = {"v": {"npz": f"{tmp_path}/a.npz", "array": "v"}}
    source = open_source(Source.model_validate({"table": f"{tmp_path}/a.{suffix}", "arrays": arrays}))
    assert isinstance(source, TableWithArrays)
    found = read(source, tmp_path)
    halves_ND, _ = halves(found["v"].cast(pa.binary(4)))
    assert found["n"].to_pylist() == list(range(rows))
    assert np.array_equal(halves_ND.astype(np.float32), numbers_ND)


def read(source: TableWithArrays, folder: Path) -> pa.Table:
    with database() as connection:
        return connection.sql(source.relation(folder)).to_arrow_table()


FILES = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


@settings(max_examples=20, deadline=None)
@given(counts=FILES, limit=st.none() | st.integers(1, 50), dtype=st.sampled_from(["<f2", ">f4", "<f8"]), data=st.data())
def test_every_key_has_its_vector_in_any_number_of_files_and_rows(counts, limit, dtype, data):
    with tempfile.TemporaryDirectory() as name:
        folder, tables, npys, first = Path(name), [], [], 0
        for file, count in enumerate(counts):
            rows = pa.Table.from_pylist(pairs(first, count), pa.schema({"url": pa.string(), "caption": pa.string()}))
            tables.append(f"{name}/{file}.parquet")
            npys.append(f"{name}/{file}.npy")
            pq.write_table(rows, tables[-1])
            np.save(npys[-1], vectors(first, count, dtype))
            first += count
        tables, npys = data.draw(st.permutations(tables)), data.draw(st.permutations(npys))
        source = open_source(Source.model_validate({"table": tables, "arrays": {"v": {"npy": npys}}}), limit)
        assert isinstance(source, TableWithArrays)
        found = read(source, folder)
    halves_ND, _ = halves(found["v"].cast(source.extra["v"]))
    taken = first if limit is None else min(limit, first)
    assert found["url"].to_pylist() == [f"http://x/{i}.jpg" for i in range(taken)]
    assert halves_ND[:, 0].tolist() == list(range(taken))


def test_a_source_with_arrays_can_be_sent_to_a_worker(meta):
    source = open_source(Source.model_validate(spec(meta)["source"]))
    assert pickle.loads(pickle.dumps(source)) == source


def test_opening_looks_at_headers_and_at_no_number(meta):
    wide_ND = np.random.default_rng(0).normal(size=(7, 4096))
    np.savez(meta / "00a.npz", l14_img=wide_ND)
    damage(meta / "00a.npz", wide_ND[6].tobytes())
    one_file = spec(meta, table=f"{meta}/00a.parquet")
    one_file["source"]["arrays"]["l14_img"]["npz"] = f"{meta}/00a.npz"
    Job.open(CurationSpec.model_validate(one_file), Silent())
    with pytest.raises(SourceError, match="cannot be read as npz: Bad CRC-32"):
        run_job(one_file)


def damage(path: Path, piece: bytes) -> None:
    """Flip a bit of a piece of a file."""
    data = path.read_bytes()
    assert data.count(piece) == 1
    path.write_bytes(data.replace(piece, bytes([piece[0] ^ 1]) + piece[1:]))


def with_array(meta: Path, array: np.ndarray) -> str:
    """What is said where the second file holds that array."""
    np.savez(meta / "00b.npz", l14_img=array)
    return refusal(meta)


def test_arrays_that_are_no_vectors_are_refused(meta):
    assert "'l14_img' has the shape (5,); it needs two dimensions" in with_array(meta, np.zeros(5, np.float32))
    assert "has the shape (5, 1, 4)" in with_array(meta, np.zeros((5, 1, 4), np.float32))
    assert "has vectors of no numbers" in with_array(meta, np.zeros((5, 0), np.float32))
    assert "holds int64; embeddings are float16, float32 or float64" in with_array(meta, np.zeros((5, 4), np.int64))
    assert "holds complex64;" in with_array(meta, np.zeros((5, 4), np.complex64))
    assert "(Fortran order)" in with_array(meta, np.zeros((4, 5), np.float32).T)
    record = np.zeros(5, [("x", "<f4")])
    assert "holds [('x', '<f4')];" in with_array(meta, record)


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was unpickled",)


def test_python_objects_are_never_unpickled(meta):
    trapped = np.full((5, 4), Trap(), object)
    assert "holds Python objects, which are never unpickled" in with_array(meta, trapped)


def test_other_numbers_of_rows_and_other_widths_are_refused(meta):
    said = with_array(meta, np.zeros((6, WIDTH), np.float32))
    assert f"{meta}/00b.npz has 6 vectors, and {meta}/00b.parquet has 5 rows" in said
    said = with_array(meta, np.zeros((5, 8), np.float32))
    assert f"{meta}/00b.npz have 8 numbers, and those of {meta}/00a.npz have 4" in said


def test_a_missing_array_is_refused_with_what_is_there(meta):
    said = refusal(meta, arrays={"v": {"npz": f"{meta}/*.npz", "array": "l14_imgs"}})
    assert "00a.npz has no array 'l14_imgs'; it has: l14_img, l14_txt; did you mean 'l14_img'?" in said


def test_missing_files_are_refused(meta):
    said = refusal(meta, arrays={"v": {"npy": f"{meta}/*.npy"}})
    assert said.startswith(f"source arrays: v: {meta}/*.npy matches no file; in {meta} there is: 00a.npz, ")


def test_another_number_of_files_is_refused(meta):
    (meta / "00b.npz").unlink()
    said = refusal(meta)
    assert f"one file of arrays for each file of the table, and there are 1 ({meta}/00a.npz …) for 2" in said


@pytest.mark.parametrize(
    ("tables", "arrays", "refused"),
    [
        (["0", "1"], ["0", "1"], None),
        (["0", "1"], ["0", "2"], ("1.parquet", "2.npy")),
        (["metadata_0", "metadata_1"], ["img_emb_0", "img_emb_1"], None),
        (["meta_9", "meta_10"], ["emb_9", "emb_10"], None),
        (["meta_9", "meta_10"], ["emb_09", "emb_10"], ("meta_10.parquet", "emb_09.npy")),
        (["train-0-of-2", "train-1-of-2"], ["first", "second"], None),
    ],
)
def test_files_pair_by_their_order_unless_their_names_say_otherwise(tmp_path, tables, arrays, refused):
    for stem, other in zip(tables, arrays, strict=True):
        write_rows(tmp_path / f"{stem}.parquet", pairs(0, 3))
        np.save(tmp_path / f"{other}.npy", vectors(0, 3))
    asked_for = {"table": f"{tmp_path}/*.parquet", "arrays": {"v": {"npy": f"{tmp_path}/*.npy"}}}
    expected = pytest.raises(SourceError, match="would go with") if refused else contextlib.nullcontext()
    with expected as caught:
        open_source(Source.model_validate(asked_for))
    for name in refused or ():
        assert f"/{name}" in str(caught.value)


@pytest.mark.parametrize("name", ["key", "URL", "caption", "fate", "image", "n", "N"])
def test_a_name_that_is_taken_is_refused(meta, name):
    said = refusal(meta, arrays={name: {"npz": f"{meta}/*.npz", "array": "l14_img"}})
    assert f"source arrays: {name}: brings column {name!r}, " in said
    assert ("which the table has, too" if name in "nN" else "a name that every row has already") in said


def test_names_that_differ_by_case_only_are_refused(meta):
    one = {"npz": f"{meta}/*.npz", "array": "l14_img"}
    assert "brings column 'V'" in refusal(meta, arrays={"v": one, "V": one})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"arrays": {"v": {}}}, "name exactly one of npz, npy"),
        ({"arrays": {"v": {"npz": "a", "npy": "b", "array": "v"}}}, "name exactly one of npz, npy"),
        ({"arrays": {"v": {"npz": "a"}}}, "stands beside npz only and always"),
        ({"arrays": {"v": {"npy": "a", "array": "v"}}}, "stands beside npz only and always"),
        ({"table": None, "folder": "f", "arrays": {"v": {"npy": "a"}}}, "arrays: stand beside a table only"),
    ],
)
def test_arrays_are_asked_for_in_one_way(source, said):
    with pytest.raises(ValidationError) as raised:
        Source.model_validate({"table": "a.parquet"} | source)
    assert said in str(raised.value)


def test_the_json_schema_knows_arrays(meta):
    jsonschema.validate(spec(meta), spec_schema(dataset_steps()))
    for arrays in ({"v": {"npz": 5}}, {"v": {"pt": "a.pt"}}, {"v": "a.npy"}, ["a.npy"]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spec(meta, arrays=arrays), spec_schema(dataset_steps()))


def test_files_of_another_format_are_refused_in_one_line(meta):
    np.save(meta / "a.npy", vectors(0, 7))
    one = {"table": f"{meta}/00a.parquet"}
    for arrays in (
        {"v": {"npz": f"{meta}/a.npy", "array": "v"}},
        {"v": {"npy": f"{meta}/00a.npz"}},
        {"v": {"npy": f"{meta}/00a.parquet"}},
    ):
        said = refusal(meta, **one, arrays=arrays)
        assert "cannot be read as np" in said
        assert "\n" not in said


@pytest.mark.parametrize("cut", [1, 60, 100])
def test_a_file_that_is_cut_short_is_refused(meta, cut):
    np.save(meta / "a.npy", vectors(0, 7))
    (meta / "a.npy").write_bytes((meta / "a.npy").read_bytes()[:-cut])
    assert "cannot be read as npy" in refusal(meta, table=f"{meta}/00a.parquet", arrays={"v": {"npy": f"{meta}/a.npy"}})
    (meta / "00b.npz").write_bytes((meta / "00b.npz").read_bytes()[:-cut])
    assert "cannot be read as npz" in refusal(meta)


@settings(max_examples=500, deadline=None)
@given(place=st.integers(0, 127), byte=st.integers(0, 255))
def test_no_byte_of_a_header_brings_down_more_than_a_sentence(place, byte):
    out = io.BytesIO()
    np.save(out, vectors(0, 7))
    data = bytearray(out.getvalue())
    data[place] = byte
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        Path(file.name).write_bytes(data)
        with contextlib.suppress(SourceError):
            describe_array(file.name, None)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(meta):
    source = open_source(Source.model_validate(spec(meta)["source"]))
    assert isinstance(source, TableWithArrays)
    np.savez(meta / "00a.npz", l14_img=vectors(0, 6))
    with pytest.raises(SourceError, match="ends before row 7"):
        source.relation(meta)
