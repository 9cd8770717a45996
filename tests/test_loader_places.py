"""Where curated sets may lie: on this machine, or behind any URL that fsspec knows; what is wrong there is told."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from small_sets import rows, same, taken, write_set

from schemas.errors import InputError, RunError
from schemas.training import TrainingSet
from training.curated_set import open_sets


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """A set in fsspec's memory, the same as `tmp_path / 'a'`."""
    folder = write_set(tmp_path / "a", range(1, 18), broken=[4])
    memory = fsspec.filesystem("memory")
    for file in folder.rglob("*.*"):
        memory.pipe_file(f"/sets/a/{file.relative_to(folder)}", file.read_bytes())
    yield "memory://sets/a"
    memory.rm("/sets", recursive=True)


@pytest.mark.parametrize("name", ["", "@v1", "/manifest.json", "/v1.json"])
def test_a_set_behind_a_url_gives_the_same_batches(tmp_path: Path, remote: str, name: str) -> None:
    assert same(taken([remote + name], 8), taken([tmp_path / "a"], 8))


def test_a_set_behind_a_url_is_that_of_its_newest_version(remote: str) -> None:
    [found] = open_sets([TrainingSet(set=remote)])
    assert found.location == "memory:///sets/a/v1.json"


def test_a_glob_of_urls_stands_for_every_set(tmp_path: Path, remote: str) -> None:
    found = open_sets([TrainingSet(set="memory://sets/*")])
    assert [one.rows for one in found] == [17]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "a", range(1, 18))
    [found] = open_sets([TrainingSet(set=f"file://{folder}")])
    assert found.path == folder / "v1.json"
    assert rows(taken([f"file://{folder}@v1"], 4)) == rows(taken([folder], 4))


def test_a_shard_that_changed_behind_a_url_is_not_read(remote: str) -> None:
    memory = fsspec.filesystem("memory")
    stored = memory.cat_file("/sets/a/v1/shard-000005.tar")
    memory.pipe_file("/sets/a/v1/shard-000005.tar", stored[:-512])
    with pytest.raises(RunError, match=r"memory:///sets/a/v1/shard-000005\.tar: has [\d,]+ bytes, .* names [\d,]+"):
        taken([remote], 8)
    memory.rm("/sets/a/v1/shard-000005.tar")
    with pytest.raises(RunError, match=r"shard-000005\.tar: cannot be read: .*`pairmill verify`"):
        taken([remote], 8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory://sets/none", r"data set memory://sets/none: there is no /sets/none/manifest\.json; name the folder"),
        ("memory://sets/a@v2", r"there is no /sets/a/v2\.json"),
        ("memory://other/*", r"there is no /other/\*/manifest\.json"),
        ("nosuch://sets/a", r"nosuch://sets/a: no file system for it: .*nosuch"),
    ],
)
def test_a_set_that_is_not_there_is_a_sentence(remote: str, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_sets([TrainingSet(set=name)])


def test_a_manifest_behind_a_url_that_is_none_is_named_by_its_url(remote: str) -> None:
    fsspec.filesystem("memory").pipe_file("/sets/a/v1.json", b"{}")
    with pytest.raises(InputError, match=r"manifest memory:///sets/a/v1\.json: is no manifest of a curated set"):
        open_sets([TrainingSet(set=f"{remote}@v1")])
