"""Shards: reproducible bytes, what others read in them, and everything that the strict reader refuses."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.shard import MOST_MEMBER_BYTES, PoolTarWriter, Sample, ShardError, ShardWriter, read_shard

KEYS = [f"{i:032x}" for i in (10, 11, 12)]
SAMPLES = [
    (KEYS[0], {"jpg": b"\xff" * 700, "txt": "Käse".encode(), "json": b"{}"}),
    (KEYS[1], {"png": b"", "txt": b""}),
]
REGULAR = tarfile.REGTYPE


def shard_bytes(samples: list[tuple[str, dict[str, bytes]]]) -> bytes:
    stream = io.BytesIO()
    with ShardWriter(stream) as writer:
        for key, members in samples:
            writer.add(key, members)
    return stream.getvalue()


def read(data: bytes) -> list[Sample]:
    return list(read_shard("here.tar", io.BytesIO(data)))


def foreign(change: Callable[[tarfile.TarInfo], None], *, format: int = tarfile.USTAR_FORMAT, size: int = 3) -> bytes:
    """A tar by Python's own writer with one member, changed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        info = tarfile.TarInfo(f"{KEYS[0]}.txt")
        info.size = size
        change(info)
        tar.addfile(info, io.BytesIO(b"abc"[:size] + bytes(max(0, size - 3))))
    return stream.getvalue()


def resealed(data: bytes, offset: int, value: bytes) -> bytes:
    """The tar with bytes of its first header changed and the checksum made right again."""
    header = bytearray(data[:512])
    header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def test_what_is_written_is_read() -> None:
    assert [(s.key, dict(s.members)) for s in read(shard_bytes(SAMPLES))] == SAMPLES
    first, second = read(shard_bytes(SAMPLES))
    assert (first.picture, first.caption, second.picture, second.caption) == (b"\xff" * 700, "Käse", b"", "")


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
        st.fixed_dictionaries({"webp": st.binary(max_size=1500)}, optional={"txt": st.binary()}),
        max_size=4,
    )
)
def test_any_samples_survive_the_way_through_a_shard(samples: dict[str, dict[str, bytes]]) -> None:
    assert {s.key: dict(s.members) for s in read(shard_bytes(list(samples.items())))} == samples


def test_bytes_depend_on_the_input_alone() -> None:
    turned = [(key, dict(reversed(members.items()))) for key, members in SAMPLES]
    assert shard_bytes(SAMPLES) == shard_bytes(turned)
    assert len(shard_bytes(SAMPLES)) % 512 == 0


def test_tarfile_reads_what_is_written() -> None:
    with tarfile.open(fileobj=io.BytesIO(shard_bytes(SAMPLES))) as tar:
        infos = tar.getmembers()
        assert [i.name for i in infos] == [f"{key}.{e}" for key, members in SAMPLES for e in members]
        assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode, i.type) for i in infos} == {
            (0, 0, 0, "", "", 0o644, REGULAR)
        }
        for key, members in SAMPLES:
            for extension, data in members.items():
                file = tar.extractfile(f"{key}.{extension}")
                assert file is not None
                assert file.read() == data


def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    import webdataset

    path = tmp_path / "shard-000000.tar"
    path.write_bytes(shard_bytes(SAMPLES))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [s["__key__"] for s in found] == [key for key, _ in SAMPLES]
    for sample, (_, members) in zip(found, SAMPLES, strict=True):
        assert {e: sample[e] for e in members} == members


def test_a_shard_by_tarfile_in_plain_ustar_is_read() -> None:
    def owned(info: tarfile.TarInfo) -> None:
        info.uname, info.mtime = "somebody", 1_700_000_000

    assert [s.caption for s in read(foreign(owned))] == ["abc"]


@pytest.mark.parametrize(
    ("key", "members", "words"),
    [
        ("A" * 32, {"txt": b""}, "not 32 lower-case hex digits"),
        ("../" + KEYS[0][3:], {"txt": b""}, "not 32 lower-case hex digits"),
        (KEYS[0] + "\n", {"txt": b""}, "not 32 lower-case hex digits"),
        (KEYS[0], {"pickle": b""}, "pickle do not belong; allowed: jpg, png, webp, txt, json"),
        (KEYS[0], {"jpg": b"", "png": b""}, "at most one picture"),
        (KEYS[0], {}, "has: none"),
    ],
)
def test_the_writer_refuses_what_does_not_belong(key: str, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(ShardError, match=words):
        shard_bytes([(key, members)])


def test_the_writer_refuses_a_key_twice() -> None:
    with pytest.raises(ShardError, match="is there twice"):
        shard_bytes([SAMPLES[0], SAMPLES[1], SAMPLES[0]])


def test_a_shard_that_was_given_up_is_not_taken_for_whole() -> None:
    stream = io.BytesIO()
    writer = ShardWriter(stream)
    writer.add(*SAMPLES[0])
    writer.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(ShardError, match="cut short"):
        read(stream.getvalue())


def test_a_shard_cut_anywhere_is_refused() -> None:
    whole = shard_bytes(SAMPLES)
    for length in [0, 1, 511, 512, 600, 1023, 1024, *range(1536, len(whole), 512), len(whole) - 1]:
        with pytest.raises(ShardError, match="cut short"):
            read(whole[:length])


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        b"S",
        b"7",
        b"\0",
    ],
)
def test_only_plain_files_pass(kind: bytes) -> None:
    with pytest.raises(ShardError, match="no plain USTAR file"):
        read(resealed(shard_bytes(SAMPLES), 156, kind))


def test_long_names_and_extended_headers_are_refused() -> None:
    def long_name(info: tarfile.TarInfo) -> None:
        info.name = "a" * 200 + ".txt"

    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(ShardError, match="no plain USTAR file"):
            read(foreign(long_name, format=format))
    with pytest.raises(ShardError, match="no plain USTAR file"):
        read(foreign(lambda info: info.pax_headers.update(path="/etc/passwd"), format=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "name",
    ["../" + KEYS[0] + ".txt", "/" + KEYS[0] + ".txt", KEYS[0], KEYS[0] + ".pyd", KEYS[0].upper() + ".txt", "cat.jpg",
     KEYS[0] + ".seg.txt", "é.jpg", KEYS[0] + ".jpg ", "-" + KEYS[0][1:] + ".jpg"],
)  # fmt: skip
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(ShardError, match="does not belong in a shard"):
        read(foreign(lambda info: setattr(info, "name", name)))


def test_a_name_in_a_folder_is_refused() -> None:
    with pytest.raises(ShardError, match="lies in a folder"):
        read(resealed(shard_bytes(SAMPLES), 345, b"etc"))


def test_a_key_that_comes_back_is_refused() -> None:
    pieces = [shard_bytes([sample])[:-1024] for sample in (SAMPLES[0], SAMPLES[1], SAMPLES[0])]
    with pytest.raises(ShardError, match="is there twice"):
        read(b"".join(pieces) + bytes(1024))


def test_a_member_twice_and_a_second_picture_are_refused() -> None:
    one, other = (shard_bytes([(KEYS[0], {extension: b"x"})])[:-1024] for extension in ("jpg", "png"))
    with pytest.raises(ShardError, match="second jpg"):
        read(one + one + bytes(1024))
    with pytest.raises(ShardError, match="second picture"):
        read(one + other + bytes(1024))


@pytest.mark.parametrize(
    "size",
    [b"-0000000001\0", b"+0000000003\0", b"0o000000003\0", b"\x80" + bytes(10) + b"\x03", b"0000000009\0\0", bytes(12)],
)
def test_sizes_that_are_not_plain_octal_are_refused(size: bytes) -> None:
    with pytest.raises(ShardError, match="cannot be read"):
        read(resealed(shard_bytes(SAMPLES), 124, size))


def test_a_size_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ShardError, match="claims"):
        read(resealed(shard_bytes(SAMPLES), 124, b"%011o\0" % (MOST_MEMBER_BYTES + 1)))


def test_a_flipped_bit_in_a_header_is_noticed() -> None:
    data = bytearray(shard_bytes(SAMPLES))
    data[0] ^= 1
    with pytest.raises(ShardError, match="checksum is wrong"):
        read(bytes(data))


def test_data_after_the_end_is_refused_and_padding_is_not() -> None:
    assert len(read(shard_bytes(SAMPLES) + bytes(10_240))) == 2
    with pytest.raises(ShardError, match="after its end marker"):
        read(shard_bytes(SAMPLES) + shard_bytes(SAMPLES[:1]))


def test_a_missing_shard_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"gone\.tar: cannot be read: No such file"):
        list(read_shard(tmp_path / "gone.tar"))


def test_the_pool_tar_says_where_each_picture_lies(tmp_path: Path) -> None:
    pictures = {"a.jpg": b"first" * 300, "b.png": b"", "c.webp": b"third"}
    path = tmp_path / "pool.tar"
    with open(path, "wb") as stream, PoolTarWriter(stream) as writer:
        offsets = {name: writer.add(name, data) for name, data in pictures.items()}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert {n: os.pread(descriptor, len(pictures[n]), at) for n, at in offsets.items()} == pictures
    finally:
        os.close(descriptor)
    with tarfile.open(path) as tar:
        assert tar.getnames() == list(pictures)
