"""Foreign tars as sources: lenient about names, strict about bounds and damage."""

import gzip
import io
import json
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from curation.sources import tar_samples
from curation.sources.webdataset import open_webdataset
from schemas.errors import SourceError


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(out, "PNG")
    return out.getvalue()


def member(name: str, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def write(path: Path, *members: tuple[tarfile.TarInfo, bytes], tar_format: int = tarfile.PAX_FORMAT) -> str:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def sample(stem: str, number: int = 0, caption: str | None = None, **record) -> list[tuple[tarfile.TarInfo, bytes]]:
    members = [member(f"{stem}.png", picture(number))]
    members += [member(f"{stem}.txt", caption.encode())] if caption is not None else []
    return members + ([member(f"{stem}.json", json.dumps(record).encode())] if record else [])


def rows_of(path, columns=None, limit=None):
    source = open_webdataset(path, columns, limit)
    return [row for index in range(len(source.files)) for row in source.read(index)]


def only(path, columns=None):
    (row,) = rows_of(path, columns)
    return row


def test_pictures_captions_urls_and_fields_are_read_as_they_are(tmp_path):
    path = write(tmp_path / "a.tar", *sample("x/1", 1, "one\n", url="http://x/1", width=8, ok=True), *sample("x/2", 2))
    first, second = rows_of(path)
    assert (first.url, first.caption, first.picture) == ("http://x/1", "one\n", picture(1))
    assert first.extra == {"ok": True, "width": 8}
    assert (first.origin, first.failure) == ("a.tar:x/1", None)
    assert (second.url, second.caption, second.picture) == (None, None, picture(2))
    assert second.extra == {"ok": None, "width": None}


def test_what_webdataset_itself_writes_is_read(tmp_path):
    import webdataset

    # A stream, not a path: with WDS_SECURE=1, which our command line sets, webdataset opens no files itself.
    with open(tmp_path / "a.tar", "wb") as stream, webdataset.TarWriter(stream) as writer:
        for i in range(3):
            writer.write({"__key__": f"é{'x' * 150}{i}", "jpg": b"bytes", "txt": f"c{i}", "json": {"n": i}})
    rows = rows_of(str(tmp_path / "a.tar"))
    assert [(row.caption, row.picture, row.extra["n"]) for row in rows] == [(f"c{i}", b"bytes", i) for i in range(3)]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(tmp_path, tar_format):
    name = "folder/" * 12 + "n" * 60
    path = write(tmp_path / "a.tar", *sample(name, caption="c"), tar_format=tar_format)
    assert only(path).origin == f"a.tar:{name}"


@pytest.mark.parametrize("suffix", ["gz", "tgz", "zst"])
def test_packed_tars_give_the_same_rows(tmp_path, suffix):
    members = [m for i in range(20) for m in sample(f"{i:03d}", i, f"c{i}", n=i)]
    plain = Path(write(tmp_path / "a.tar", *members))
    packed = tmp_path / f"a.tar.{suffix}"
    data = plain.read_bytes()
    packed.write_bytes(pa.compress(data, "zstd", asbytes=True) if suffix == "zst" else gzip.compress(data))
    there, here = rows_of(str(packed)), rows_of(str(plain))
    assert [(r.picture, r.caption, r.extra) for r in there] == [(r.picture, r.caption, r.extra) for r in here]
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(SourceError, match="cannot be read as a tar"):
        open_webdataset(str(packed))


def test_a_name_ends_at_the_first_dot_of_its_base_name(tmp_path):
    path = write(
        tmp_path / "a.tar",
        *(
            member(f"./v1.0/a.{extension}", data)
            for extension, data in [("jpg", b"p"), ("seg.png", b"?"), ("txt", b"c")]
        ),
        member("v1.0/b.JPG", b"q"),
        member("v1.0/b.TXT", b"d"),
    )
    assert [(r.origin, r.picture, r.caption) for r in rows_of(path)] == [
        ("a.tar:v1.0/a", b"p", "c"),
        ("a.tar:v1.0/b", b"q", "d"),
    ]


def test_members_of_unknown_kinds_are_passed_over(tmp_path):
    folder = member("x", type=tarfile.DIRTYPE)
    odd = [member("README"), member("a.npy", b"n"), member("._a.jpg", b"mac"), member(".hidden.txt", b"h")]
    path = write(tmp_path / "a.tar", folder, *odd, *sample("a", 1, "c"), member("a.cls", b"5"), member("index.idx"))
    assert [(r.caption, r.picture) for r in rows_of(path)] == [("c", picture(1))]


def test_of_two_pictures_the_format_decides_not_the_order(tmp_path):
    for order in (["png", "jpg"], ["jpg", "png"]):
        path = write(tmp_path / "a.tar", *(member(f"a.{extension}", extension.encode()) for extension in order))
        assert only(path).picture == b"jpg"


def test_the_caption_is_the_text_then_the_field_unless_a_field_is_asked_for(tmp_path):
    both = write(tmp_path / "both.tar", *sample("a", caption="text", alt="alt", n=1))
    assert only(both).caption == "text"
    assert only(both, {"caption": "alt"}).caption == "alt"
    assert only(both, {"caption": "txt"}).caption == "text"
    members = [*sample("a")[:1], member("a.json", json.dumps({"caption": "field", "link": "u"}).encode())]
    field = write(tmp_path / "field.tar", *members)
    assert only(field).caption == "field"
    assert only(field).extra == {"link": "u"}
    assert (only(field, {"url": "link"}).url, only(field, {"url": "link"}).caption) == ("u", "field")
    assert only(field, {"caption": "txt"}).caption is None
    with pytest.raises(SourceError, match="no column 'alt' to become 'caption'; it has: caption, link"):
        open_webdataset(field, {"caption": "alt"})


def test_fields_have_one_type_that_fits_every_tar(tmp_path):
    first = {"i": 1, "f": 1, "mixed": 1, "hash": 2**64 - 1, "long": 2**80, "exact": 2**53 + 1, "s": "a", "b": True}
    second = {"i": -1, "f": 0.5, "mixed": True, "hash": 0, "exact": 0.5, "nested": {"a": 1}, "none": None}
    third = {"b": False, "s": "", "either": [1]}
    fourth = {"either": "x"}
    for name, record in zip("abcd", (first, second, third, fourth), strict=True):
        write(tmp_path / f"{name}.tar", *sample(name, **record))
    source = open_webdataset(str(tmp_path / "*.tar"))
    texts = dict.fromkeys(["either", "exact", "long", "mixed", "none", "s"], pa.string())
    numbers = {"b": pa.bool_(), "f": pa.float64(), "hash": pa.uint64(), "i": pa.int64()}
    assert source.extra == dict(sorted((texts | numbers).items()))
    rows = [row.extra for index in range(4) for row in source.read(index)]
    table = pa.Table.from_pylist(rows, pa.schema(dict(source.extra))).to_pylist()
    assert (table[0]["f"], table[0]["mixed"], table[1]["mixed"]) == (1.0, "1", "true")
    assert (table[0]["hash"], table[0]["exact"], table[0]["long"]) == (2**64 - 1, str(2**53 + 1), str(2**80))
    assert (table[2]["either"], table[3]["either"]) == ("[1]", "x")


def test_reserved_fields_ride_along_under_another_name(tmp_path):
    path = write(tmp_path / "a.tar", *sample("a", key="000", fate="x", phash=5))
    assert only(path).extra == {"phash": 5, "source_fate": "x", "source_key": "000"}


def test_a_stem_that_comes_again_fails_and_the_first_stays(tmp_path):
    again = [*sample("a", 1, "first"), *sample("a", 2, "second"), *sample("b", 3), *sample("a", 4, "third")]
    rows = rows_of(write(tmp_path / "a.tar", *again))
    assert [(r.picture, r.failure and r.failure.status) for r in rows] == [
        (picture(1), None),
        (None, "duplicate_name"),
        (picture(3), None),
        (None, "duplicate_name"),
    ]


@pytest.mark.parametrize("name", ["../a", "/etc/a", "x/../../a"])
def test_names_that_lead_out_of_the_tar_fail_their_row(tmp_path, name):
    bad, good = rows_of(write(tmp_path / "a.tar", *sample(name, 1, "c"), *sample("b", 2, "d")))
    assert (bad.picture, bad.failure.status) == (None, "refused")
    assert "leads out of the tar" in bad.failure.error
    assert (good.picture, good.failure) == (picture(2), None)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_fail_their_row_and_are_never_followed(tmp_path, kind):
    link = member("a.jpg", type=kind, linkname="/etc/passwd")
    bad, good = rows_of(write(tmp_path / "a.tar", link, member("a.txt", b"c"), *sample("b", 2)))
    assert (bad.picture, bad.caption, bad.failure.status) == (None, "c", "refused")
    assert good.failure is None


def test_members_beyond_the_bounds_fail_their_row_and_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_samples, "PICTURE_BYTES", 1 << 20)
    monkeypatch.setattr(tar_samples, "TEXT_BYTES", 1 << 10)
    big = [member("a.jpg", bytes(64 << 20)), member("a.txt", b"c")]
    path = write(tmp_path / "a.tar", *big, member("b.txt", bytes(2 << 10)), member("b.jpg", b"p"), *sample("c", 1))
    tracemalloc.start()
    rows = rows_of(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r.failure and r.failure.status for r in rows] == ["too_large", "too_large", None]
    assert rows[0].failure.error == "a.tar:a: its .jpg has 67,108,864 bytes, more than 1,048,576"
    assert most < 16 << 20


def test_captions_that_are_no_text_and_json_that_is_none_fail_their_row(tmp_path):
    texts = {"latin": b"caf\xe9", "good": "café".encode()}
    jsons = {
        "cut": b'{"a":',
        "list": b"[1]",
        "lone": b'{"a": "\\ud800"}',
        "deep": b"[" * 100_000,
        "fine": b'{"a": "\\u0000"}',
    }
    members = [m for n, data in texts.items() for m in (member(f"{n}.jpg", b"p"), member(f"{n}.txt", data))]
    members += [m for n, data in jsons.items() for m in (member(f"{n}.jpg", b"p"), member(f"{n}.json", data))]
    rows = rows_of(write(tmp_path / "a.tar", *members))
    statuses = {row.origin.partition(":")[2]: row.failure and row.failure.status for row in rows}
    broken = dict.fromkeys(["cut", "list", "lone", "deep"], "broken_json")
    assert statuses == {"latin": "not_utf8", "good": None, "fine": None} | broken
    assert rows[-1].extra == {"a": "\0"}


def test_a_sample_without_a_known_picture_is_a_failed_row(tmp_path):
    rows = rows_of(write(tmp_path / "a.tar", member("a.txt", b"c"), member("b.v2.jpg", b"p"), *sample("c")))
    assert [(r.caption, r.failure and r.failure.status) for r in rows] == [
        ("c", "no_picture"),
        (None, "no_picture"),
        (None, None),
    ]


def test_names_that_are_no_utf8_can_be_written_down(tmp_path):
    path = write(tmp_path / "a.tar", *sample("caf\udce9"), tar_format=tarfile.GNU_FORMAT)
    assert only(path).origin == "a.tar:caf\\xe9"
    pa.array([only(path).origin])


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _without_end(data: bytes) -> bytes:
    return data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512)


def _flipped(data: bytes) -> bytes:
    place = data.index(b"0007.png")
    return data[:place] + b"\xff" + data[place + 1 :]


@pytest.mark.parametrize("damage", [_cut, _without_end, _flipped, lambda data: b"no tar at all" * 100])
def test_a_damaged_tar_is_refused_before_anything_runs(tmp_path, damage):
    path = Path(write(tmp_path / "a.tar", *(m for i in range(20) for m in sample(f"{i:04d}", i, "c"))))
    assert len(rows_of(str(path))) == 20
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=r"a\.tar: cannot be read as a tar: .*leave it out"):
        open_webdataset(str(path))


def test_headers_that_claim_gigabytes_are_refused(tmp_path):
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    (tmp_path / "name.tar").write_bytes(name.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    name.size = -512
    (tmp_path / "backwards.tar").write_bytes(name.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(SourceError, match="a header of -512 bytes"):
        open_webdataset(str(tmp_path / "backwards.tar"))
    path = write(tmp_path / "pax.tar", member("a.jpg", b"p", pax_headers={"comment": "x" * (2 << 20)}))
    sparse = tarfile.TarInfo("a.jpg")
    sparse.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "sparse.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    negative = write(tmp_path / "negative.tar", member("a.jpg", b"p", pax_headers={"size": "-512"}), *sample("b"))
    for damaged in (str(tmp_path / "name.tar"), path, str(tmp_path / "sparse.tar"), negative):
        with pytest.raises(SourceError, match="cannot be read as a tar"):
            open_webdataset(damaged)


def test_a_tar_with_too_many_different_fields_is_refused(tmp_path):
    path = write(
        tmp_path / "a.tar", *(m for i in range(60) for m in sample(f"{i}", **{f"f{i}_{k}": 1 for k in range(20)}))
    )
    with pytest.raises(SourceError, match="more than 1,000 different fields"):
        open_webdataset(path)


def test_an_empty_tar_is_refused_unless_others_have_rows(tmp_path):
    empty = write(tmp_path / "a.tar")
    with pytest.raises(SourceError, match=r"a\.tar: holds no sample \(pictures are jpg"):
        open_webdataset(empty)
    assert len(rows_of([empty, write(tmp_path / "b.tar", *sample("b"))])) == 1


def test_the_order_of_the_list_does_not_matter_and_a_limit_leaves_later_tars_out(tmp_path):
    paths = [
        write(tmp_path / f"{n}.tar", *(m for i in range(5) for m in sample(f"{n}{i}", i, f"{n}{i}"))) for n in "abc"
    ]
    (tmp_path / "c.tar").write_bytes(b"not looked at")
    limited = open_webdataset([paths[2], paths[1], paths[0]], limit=7)
    assert [file.path for file in limited.files] == paths[:2]
    rows = [row for index in range(2) for row in limited.read(index)]
    assert [row.caption for row in rows][:7] == ["a0", "a1", "a2", "a3", "a4", "b0", "b1"]


def test_a_source_travels_to_another_process(tmp_path):
    source = pickle.loads(pickle.dumps(open_webdataset(write(tmp_path / "a.tar", *sample("a", 1, "c", n=1)))))
    assert [row.caption for row in source.read(0)] == ["c"]


def test_memory_does_not_grow_with_the_tar(tmp_path):
    large = [m for i in range(100) for m in [member(f"{i}.jpg", bytes(300_000)), member(f"{i}.txt", b"c")]]
    source = open_webdataset(write(tmp_path / "a.tar", *large, *(member(f"s{i}.jpg", b"p") for i in range(8_000))))
    tracemalloc.start()
    count = sum(1 for _ in source.read(0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8_100
    assert most < 4_000_000
