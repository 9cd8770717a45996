"""Pictures to evaluate on: the same from a folder, a table, tars, Parquet files and curated sets."""

import csv
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_cases import COLOURS, add, png
from test_contrastive import write_set

from schemas.errors import InputError
from schemas.training import Pictures, ZeroShot
from training.evaluate.labelled import number_classes, read_labelled
from training.evaluate.pictures import InTar
from training.evaluate.sources import read_examples

ROWS = [(colour, number, f"a {colour} picture\na {colour} thing {number}") for colour in COLOURS for number in range(3)]


def stored(picture) -> bytes:
    return picture.read_bytes() if isinstance(picture, Path) else picture.read()


def seen(place: dict, **more) -> list[tuple[str, str | None, list[str]]]:
    """Digest, label and captions of what is read, sorted."""
    found = read_examples(Pictures(**place, **more), "test")
    return sorted((hashlib.sha256(stored(one.picture)).hexdigest(), one.label, one.captions) for one in found)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The same nine pictures in four layouts."""
    root = tmp_path_factory.mktemp("sources")
    with open(root / "table.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label", "caption"])
        for colour, number, captions in ROWS:
            path = root / "folder" / colour / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(colour, number))
            path.with_suffix(".txt").write_text(captions + "\n")
            table.writerows([f"folder/{colour}/{number}.png", colour, line] for line in captions.splitlines())
    for part, rows in enumerate((ROWS[:4], ROWS[4:])):
        with tarfile.open(root / f"part-{part}.tar", "w") as tar:
            for colour, number, captions in rows:
                add(tar, f"x/{colour}{number}.PNG", png(colour, number))
                add(tar, f"x/{colour}{number}.cls", f"{colour}\n")
                add(tar, f"x/{colour}{number}.txt", captions)
                add(tar, f"x/{colour}{number}.seg.png", b"of another extension")
            add(tar, "README", "no sample")
    columns = {
        "image": [{"bytes": png(colour, number), "path": None} for colour, number, _ in ROWS],
        "label": [colour for colour, _, _ in ROWS],
        "caption": [captions.splitlines() for _, _, captions in ROWS],
    }
    pq.write_table(pa.table(columns), root / "pictures.parquet", row_group_size=2)
    return root


@pytest.mark.parametrize("place", [{"table": "table.csv"}, {"webdataset": "part-*.tar"}, {"parquet": "*.parquet"}])
def test_every_layout_gives_the_pictures_labels_and_captions_of_the_folder(root, place):
    expected = seen({"folder": str(root / "folder")})
    assert len(expected) == 9
    assert {label for _, label, _ in expected} == set(COLOURS)
    assert expected == seen({kind: str(root / name) for kind, name in place.items()})


def sample(number: int, colour: str, caption: str, same: int | None = None) -> tuple[str, dict[str, bytes]]:
    members = {"png": png(colour, number if same is None else same), "txt": caption.encode()}
    return f"{number:032x}", members | {"json": f'{{"colour": "{colour}", "short": "{colour}!"}}'.encode()}


def test_a_curated_set_gives_what_it_holds_out_and_one_picture_has_all_its_captions(tmp_path):
    rows = [sample(number, "red", f"caption {number}\nin two lines") for number in range(4)]
    rows += [sample(4, "blue", "another caption", same=9), sample(5, "blue", "and another", same=9)]
    folder = write_set(tmp_path / "set", rows, per_shard=3, holdout=1)
    held_out = read_examples(Pictures(set=str(folder), label_column="colour"), "test")
    assert [(one.label, one.captions) for one in held_out] == [
        ("red", ["caption 3\nin two lines"]),
        ("blue", ["another caption", "and another"]),
    ]
    trained = read_examples(Pictures(set=str(folder), shards="training", caption_column="short"), "test")
    assert [one.captions for one in trained] == [["red!"]] * 3
    with open(folder / "v1" / "shard-000001.tar", "r+b") as stream:
        stream.seek(700)
        stream.write(b"x")
    with pytest.raises(InputError, match="is not the file that"):
        read_examples(Pictures(set=str(folder)), "test")


@pytest.mark.parametrize(
    ("words", "given", "numbers", "names"),
    [
        (["b_c", "a", "b_c"], None, (1, 0, 1), ("a", "b c")),
        (["10", "9", "10"], None, (1, 0, 1), ("9", "10")),
        (["2", "0"], ("a", "b", "c"), (2, 0), ("a", "b", "c")),
        (["cat", "dog"], ("dog", "cow", "cat"), (2, 0), ("dog", "cow", "cat")),
        (["n02", "n01"], ("one", "two"), (1, 0), ("one", "two")),
    ],
)
def test_labels_become_numbers_by_the_names_that_are_given(words, given, numbers, names):
    assert number_classes(words, given, "zeroshot") == (numbers, names)


def test_names_that_do_not_fit_the_labels_are_refused():
    with pytest.raises(InputError, match="`classes` has 3 names, the pictures have 2 labels: n01, n02"):
        number_classes(["n01", "n02"], ("a", "b", "c"), "zeroshot")


def test_the_classes_and_templates_of_imagenet_ship_with_open_clip(root):
    for name, count in (("openai", 80), ("simple", 7)):
        test = read_labelled(ZeroShot(folder=str(root / "folder"), templates=name))
        assert len(test.templates) == count
        assert all(template.count("{}") == 1 for template in test.templates)
    with pytest.raises(InputError, match="`classes` has 1000 names, the pictures have 3 labels: blue, green, red"):
        read_labelled(ZeroShot(folder=str(root / "folder"), classes="imagenet"))


def test_templates_are_read_as_clip_benchmark_writes_them(root):
    (root / "templates.txt").write_text("a photo of a {c}.\n\na {c}\n")
    test = read_labelled(ZeroShot(folder=str(root / "folder"), templates=str(root / "templates.txt")))
    assert test.templates == ("a photo of a {}.", "a {}")


def test_numbers_in_tars_are_places_among_names_that_must_be_given(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in (1, 0):
            add(tar, f"s{number}.png", png("red", number))
            add(tar, f"s{number}.cls", str(number))
    test = read_labelled(ZeroShot(webdataset=str(tmp_path / "x.tar"), classes=("cat", "dog", "cow")))
    assert (test.labels, test.class_names) == ((1, 0), ("cat", "dog", "cow"))
    with pytest.raises(InputError, match="are numbers; name the classes in that order by `classes`"):
        read_labelled(ZeroShot(webdataset=str(tmp_path / "x.tar")))


def test_a_picture_in_a_tar_is_read_from_its_place(root):
    (first, *_) = read_examples(Pictures(webdataset=str(root / "part-0.tar")), "test")
    assert isinstance(first.picture, InTar)
    assert np.frombuffer(first.picture.read()[:4], np.uint8).tolist() == [137, 80, 78, 71]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"webdataset": "gone-*.tar"}, "there is no file"),
        ({"webdataset": "table.csv"}, "cannot be read"),
        ({"parquet": "table.csv"}, "cannot be read as Parquet"),
        ({"parquet": "pictures.parquet", "image_column": "img"}, "has no column 'img'; it has image, label, caption"),
        ({"folder": "folder/red/empty"}, "there is no folder"),
        ({"set": "nowhere"}, "there is no folder"),
        ({"table": "bad.csv"}, "row 3: there is no file"),
    ],
)
def test_what_cannot_be_read_is_a_sentence_with_the_evaluation_in_front(root, place, words):
    (root / "bad.csv").write_text("file,label\nfolder/red/0.png,red\nfolder/red/7.png,red\n")
    moved = {k: v if k == "image_column" else str(root / v) for k, v in place.items()}
    with pytest.raises(InputError, match=words) as raised:
        read_examples(Pictures(**moved), "zeroshot birds")
    assert str(raised.value).startswith("zeroshot birds: ")


@pytest.mark.parametrize(("text", "words"), [("{", "cannot be read"), ("[1]", "its .json is no object")])
def test_a_sample_whose_json_is_broken_is_a_sentence(tmp_path, text, words):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "s.png", png("red"))
        add(tar, "s.json", text)
    with pytest.raises(InputError, match=words):
        read_examples(Pictures(webdataset=str(tmp_path / "x.tar")), "test")


def test_a_picture_without_a_label_is_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(png("red"))
    with pytest.raises(InputError, match=r"1 of 1 pictures in .* have no label .*labels are sub-folders"):
        read_labelled(ZeroShot(folder=str(tmp_path)))
