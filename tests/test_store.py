"""The store: put if absent, content-named files, nothing left behind."""

import multiprocessing
import os

import pytest

from curation.storage.store import Store, canonical_json
from schemas.errors import InputError, StoreError


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


def put_number(root, number, results):
    results.put(Store(root).put("pool/one.json", {"number": number}))


def test_of_many_processes_that_put_one_record_exactly_one_succeeds(store):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=put_number, args=(store.root, n, results)) for n in range(4)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(outcomes) == [False, False, False, True]


def test_a_record_that_is_there_is_never_replaced(store):
    assert store.put("a/b.json", {"x": 1})
    assert not store.put("a/b.json", {"x": 2})
    assert store.get("a/b.json") == {"x": 1}


def test_equal_files_are_one_file_and_nothing_temporary_stays(store):
    refs = []
    for _ in range(2):
        with store.new_file(".bin") as file:
            file.path.write_bytes(b"same")
        refs.append(file.ref)
    assert refs[0] == refs[1]
    assert store.path(refs[0].name).read_bytes() == b"same"
    assert os.listdir(store.path("tmp")) == []


def write_half(store):
    with store.new_file(".bin") as file:
        file.path.write_bytes(b"half")
        raise RuntimeError


def test_a_file_whose_writer_fails_is_not_there(store):
    with pytest.raises(RuntimeError):
        write_half(store)
    assert not store.path("blobs").exists()
    assert os.listdir(store.path("tmp")) == []


def test_a_store_of_a_newer_format_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="has format 99, this program reads format 1"):
        Store.open(tmp_path)


def test_reading_where_there_is_no_store_says_so(tmp_path):
    with pytest.raises(InputError, match="there is no store here"):
        Store.existing(tmp_path / "nothing")


def test_an_exclusive_lock_is_refused_while_a_run_holds_the_store(store):
    with store.lock(), pytest.raises(StoreError, match="a run is using it"), store.lock(exclusive=True):
        pass
    with store.lock(exclusive=True):
        pass


def test_canonical_json_has_one_spelling_and_no_nan():
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize("below", ["", "below", "below/deeper"])
def test_a_path_that_is_a_file_or_leads_through_one_is_refused_with_a_sentence(tmp_path, below):
    file = tmp_path / "pairs.parquet"
    file.write_bytes(b"no folder")
    for way in (Store.open, Store.existing):
        with pytest.raises(InputError, match="is a file, and a store is a folder; name another"):
            way(file / below)
