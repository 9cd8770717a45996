"""Folders of pictures as sources, with captions beside them or in one file."""

import csv
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from curation.sources import folder_listing
from curation.sources.folder import open_folder
from schemas.errors import SourceError


def lay(root: Path, **files: bytes | str) -> str:
    """Write files; `__` in a name stands for a folder, `_` for a dot."""
    for name, data in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(root)


def rows_of(root, columns=None, limit=None):
    source = open_folder(root, columns, limit)
    return [row for index in range(len(source.files)) for row in source.read(index)]


def write_csv(path: Path, *rows: list) -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_pictures_take_the_text_and_json_beside_them(tmp_path):
    record = json.dumps({"url": "http://x/b", "caption": "from json", "width": 3})
    root = lay(tmp_path, a_jpg=b"A", a_txt="one\ntwo\n", sub__b_PNG=b"B", sub__b_json=record, sub__c_webp=b"C")
    a, b, c = rows_of(root)
    assert (a.url, a.caption, a.picture, a.origin, a.extra) == (None, "one\ntwo", b"A", "a.jpg", {"width": None})
    assert (b.url, b.caption, b.picture, b.origin, b.extra) == (
        "http://x/b",
        "from json",
        b"B",
        "sub/b.PNG",
        {"width": 3},
    )
    assert (c.url, c.caption, c.picture, c.origin) == (None, None, b"C", "sub/c.webp")


def test_two_pictures_of_one_stem_are_two_rows(tmp_path):
    root = lay(tmp_path, a_jpg=b"J", a_png=b"P", a_txt="c")
    assert [(row.picture, row.caption) for row in rows_of(root)] == [(b"J", "c"), (b"P", "c")]


def test_other_files_hidden_ones_and_linked_folders_are_passed_over(tmp_path):
    outside = tmp_path / "outside"
    lay(outside, x_jpg=b"X")
    root = lay(tmp_path / "in", a_jpg=b"A", README_md="r", lonely_txt="t")
    lay(tmp_path / "in" / ".cache", b_jpg=b"B")
    (tmp_path / "in" / "._a.jpg").write_bytes(b"mac")
    (tmp_path / "in" / "link").symlink_to(outside)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert [row.picture for row in rows_of(root)] == [b"A"]


def test_what_cannot_be_read_fails_its_row_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_listing, "PICTURE_BYTES", 10)
    root = lay(tmp_path, a_jpg=b"A", a_txt=b"caf\xe9", b_jpg=b"B", b_json="{", c_jpg=bytes(11), d_jpg=b"D")
    (tmp_path / "e.jpg").symlink_to(tmp_path / "nowhere")
    rows = {row.origin: row for row in rows_of(root)}
    statuses = {name: row.failure and row.failure.status for name, row in rows.items()}
    expected = {"a.jpg": "not_utf8", "b.jpg": "broken_json", "c.jpg": "too_large", "d.jpg": None, "e.jpg": "missing"}
    assert statuses == expected
    assert [name for name, row in rows.items() if row.picture is not None] == ["d.jpg"]


def test_a_captions_file_gives_pairs_urls_and_columns(tmp_path):
    root = lay(tmp_path, a_jpg=b"A", a_txt="not this", sub__b_jpg=b"B", c_jpg=b"C")
    rows = [["file", "caption", "url", "n"], ["./sub/b.jpg", "first", "http://x/b", 1], ["sub/b.jpg", "second", "", 2]]
    write_csv(tmp_path / "captions.csv", *rows, ["a.jpg", "for a\nin two lines", "", 3])
    assert [(r.origin, r.caption, r.url, r.picture, r.extra) for r in rows_of(root)] == [
        ("a.jpg", "for a\nin two lines", None, b"A", {"n": 3}),
        ("c.jpg", None, None, b"C", {"n": None}),
        ("sub/b.jpg", "first", "http://x/b", b"B", {"n": 1}),
        ("sub/b.jpg", "second", None, b"B", {"n": 2}),
    ]


def test_a_captions_file_may_be_json_lines_with_other_names(tmp_path):
    root = lay(tmp_path, a_jpg=b"A", captions_jsonl=json.dumps({"file": "a.jpg", "alt": "nul\0", "tags": ["x"]}))
    (row,) = rows_of(root, {"caption": "alt"})
    assert (row.caption, row.url, row.extra) == ("nul\0", None, {"tags": ["x"]})


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../secret.jpg", "refused"),
        ("/etc/passwd", "refused"),
        ("x/../../secret.jpg", "refused"),
        ("no.jpg", "missing"),
    ],
)
def test_files_that_a_captions_file_names_lie_in_the_folder_or_fail(tmp_path, name, status):
    (tmp_path / "secret.jpg").write_bytes(b"S")
    root = lay(tmp_path / "in", a_jpg=b"A")
    write_csv(tmp_path / "in" / "captions.csv", ["file", "caption"], [name, "c"], ["a.jpg", "d"])
    rows = {row.caption: row for row in rows_of(root)}
    assert (rows["c"].picture, rows["c"].failure.status) == (None, status)
    assert (rows["d"].picture, rows["d"].failure) == (b"A", None)


def test_a_captions_file_that_is_not_one_is_refused(tmp_path):
    root = lay(tmp_path, a_jpg=b"A", captions_csv="name,caption\na.jpg,c\n")
    with pytest.raises(SourceError, match="has no column 'file' to become 'file'; it has: name, caption"):
        open_folder(root)
    assert rows_of(root, {"caption": "caption", "file": "name"})[0].caption == "c"
    lay(tmp_path, captions_csv="file,text\na.jpg,c\n")
    with pytest.raises(SourceError, match="has no column 'caption'"):
        open_folder(root)
    lay(tmp_path, captions_jsonl='{"file": "a.jpg", "caption": "c"}\n')
    with pytest.raises(SourceError, match="leave one"):
        open_folder(root)


def test_a_folder_without_pictures_and_what_is_no_folder_are_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no picture"):
        open_folder(lay(tmp_path / "in", a_txt="c"))
    with pytest.raises(SourceError, match="is not there"):
        open_folder(str(tmp_path / "no"))
    with pytest.raises(SourceError, match="is a file"):
        open_folder(str(tmp_path / "in" / "a.txt"))


@pytest.fixture
def many(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_listing, "CHUNK_ROWS", 16)
    for i in range(200):
        (tmp_path / f"{i:03d}.jpg").write_bytes(str(i).encode())
    return tmp_path


def test_a_folder_comes_in_chunks_that_are_the_same_each_time(many):
    source, again = open_folder(str(many)), open_folder(str(many))
    assert 5 < len(source.files) < 30
    assert source.files == again.files
    rows = [row for index in range(len(source.files)) for row in source.read(index)]
    assert [row.picture for row in rows] == [str(i).encode() for i in range(200)]
    assert sum(file.bytes for file in source.files) == sum(len(str(i)) for i in range(200))


@pytest.mark.parametrize("change", ["100.jpg", "100.txt", "100a.jpg"])
def test_a_new_file_changes_one_chunk(many, change):
    before = {file.sha256 for file in open_folder(str(many)).files}
    (many / change).write_bytes(b"new")
    after = {file.sha256 for file in open_folder(str(many)).files}
    assert len(before - after) == 1
    assert 1 <= len(after - before) <= 2


def test_a_new_caption_changes_the_chunk_of_its_picture(many):
    rows = [["file", "caption"], *([f"{i:03d}.jpg", "c"] for i in range(200))]
    write_csv(many / "captions.csv", *rows)
    before = {file.sha256 for file in open_folder(str(many)).files}
    write_csv(many / "captions.csv", *rows, ["100.jpg", "another"])
    assert len({file.sha256 for file in open_folder(str(many)).files} - before) == 1


def test_a_limit_leaves_later_chunks_out(many):
    source = open_folder(str(many), limit=40)
    rows = [row for index in range(len(source.files)) for row in source.read(index)]
    assert 40 <= len(rows) < 200
    assert [row.origin for row in rows[:40]] == [f"{i:03d}.jpg" for i in range(40)]


def test_names_that_are_no_utf8_can_be_written_down(tmp_path):
    (tmp_path / "caf\udce9.jpg").write_bytes(b"A")
    (row,) = rows_of(str(tmp_path))
    assert row.origin == "caf\\xe9.jpg"
    pa.array([row.origin])
    write_csv(tmp_path / "captions.csv", ["file", "caption"], ["b.jpg", "c"])
    assert [row.caption for row in rows_of(str(tmp_path))] == ["c", None]


def test_a_source_travels_to_another_process(tmp_path):
    lay(tmp_path, a_jpg=b"A")
    write_csv(tmp_path / "captions.csv", ["file", "caption", "n"], ["a.jpg", "c", 1])
    source = pickle.loads(pickle.dumps(open_folder(str(tmp_path))))
    assert [(row.caption, row.extra) for row in source.read(0)] == [("c", {"n": 1})]
