"""The tar format: a reproducible writer and a strict reader. Nothing is ever extracted or executed.

A sample is a run of members `<key>.<extension>` with one key: at most one picture (jpg, png or webp), then `txt` (the
caption), then `json`. Keys are 32 lower-case hex digits. Anything else is refused on both sides.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from schemas.errors import RunError

PICTURES = ("jpg", "png", "webp")
EXTENSIONS = (*PICTURES, "txt", "json")
BLOCK_BYTES = 512
MOST_MEMBER_BYTES = 1 << 30
_END = bytes(2 * BLOCK_BYTES)
_KEY = re.compile(r"[0-9a-f]{32}\Z")
_NAME = re.compile(r"([0-9a-f]{32})\.([a-z]+)\Z")
_NUMBER = re.compile(rb"[0-7]{1,11}\Z")
_OWNER_AND_MODE = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_AFTER_CHECKSUM = b" 0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_READ_AT_ONCE = 1 << 16


class ShardError(RunError):
    """A tar is not a shard as we write them: cut short, or with something in it that does not belong there."""


@dataclass(frozen=True)
class Sample:
    """One pair of a shard: its key, and the bytes of its members by extension."""

    key: str
    members: Mapping[str, bytes]

    @property
    def picture(self) -> bytes | None:
        """The stored picture, whichever format it has."""
        return next((self.members[e] for e in PICTURES if e in self.members), None)

    @property
    def caption(self) -> str:
        """The caption; empty where there is none."""
        return self.members.get("txt", b"").decode("utf-8")


class _TarWriter:
    """USTAR with fixed mode, owner and time: the bytes depend on names and contents alone."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:  # a file that was given up has no end marker, so that no reader takes it for whole
            self._stream.write(_END)
            self._stream.flush()

    def _member(self, name: str, data: bytes) -> int:
        """Write one member and return the offset of its data."""
        if len(data) > MOST_MEMBER_BYTES:
            raise ShardError(f"member {name} has {len(data):,} bytes; at most {MOST_MEMBER_BYTES:,} are taken")
        padding = -len(data) % BLOCK_BYTES
        self._stream.write(_header(name, len(data)))
        self._stream.write(data)
        self._stream.write(bytes(padding))
        start = self._offset + BLOCK_BYTES
        self._offset = start + len(data) + padding
        return start


class ShardWriter(_TarWriter):
    """Writes samples in the order given, members in a fixed order."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._keys: set[str] = set()

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write one sample. Raises ShardError for a key or a member that does not belong, or a key twice."""
        if not _KEY.match(key):
            raise ShardError(f"key {key!r} is not 32 lower-case hex digits")
        if key in self._keys:
            raise ShardError(f"key {key} is there twice")
        odd = sorted(set(members) - set(EXTENSIONS))
        if odd:
            raise ShardError(f"sample {key}: members {', '.join(odd)} do not belong; allowed: {', '.join(EXTENSIONS)}")
        if not members or _pictures(members) > 1:
            there = ", ".join(members) or "none"
            raise ShardError(f"sample {key}: a sample has members, and at most one picture; this one has: {there}")
        self._keys.add(key)
        for extension in EXTENSIONS:
            if extension in members:
                self._member(f"{key}.{extension}", members[extension])


class PoolTarWriter(_TarWriter):
    """Writes the pool's pictures under their address, and says where each lies."""

    def add(self, name: str, data: bytes) -> int:
        """Write a picture and return the offset of its data, for a read at that place."""
        return self._member(name, data)


def read_shard(path: Path | str, stream: BinaryIO | None = None) -> Iterator[Sample]:
    """The samples of a shard in order. Raises ShardError at the first thing that is not as we write it."""
    with _opened(path) if stream is None else stream as opened:
        seen: set[str] = set()
        key, members = "", dict[str, bytes]()
        for name, data in _members(opened, str(path)):
            found = _NAME.match(name)
            if not found or found[2] not in EXTENSIONS:
                raise ShardError(f"{path}: member {name!r} does not belong in a shard")
            if found[1] != key:
                if members:
                    yield Sample(key, members)
                key, members = found[1], {}
                if key in seen:
                    raise ShardError(f"{path}: key {key} is there twice")
                seen.add(key)
            if found[2] in members or (found[2] in PICTURES and _pictures(members)):
                raise ShardError(f"{path}: sample {key} has a second {found[2] if found[2] in members else 'picture'}")
            members[found[2]] = data
        if members:
            yield Sample(key, members)


def _opened(path: Path | str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error


def _pictures(members: Mapping[str, bytes]) -> int:
    return sum(extension in members for extension in PICTURES)


def _members(stream: BinaryIO, path: str) -> Iterator[tuple[str, bytes]]:
    while (header := stream.read(BLOCK_BYTES)) != bytes(BLOCK_BYTES):
        name, size = _parsed(header, path)
        padding = -size % BLOCK_BYTES
        data = stream.read(size)
        if len(data) != size or len(stream.read(padding)) != padding:
            raise ShardError(f"{path}: member {name} is cut short ({len(data):,} of {size:,} bytes)")
        yield name, data
    if stream.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
        raise ShardError(f"{path}: ends without its end marker; it was cut short")
    while rest := stream.read(_READ_AT_ONCE):
        if rest.strip(b"\0"):
            raise ShardError(f"{path}: has data after its end marker")


def _parsed(header: bytes, path: str) -> tuple[str, int]:
    """Name and size of a member; only plain USTAR files with a sound checksum pass."""
    if len(header) != BLOCK_BYTES:
        raise ShardError(f"{path}: ends without its end marker; it was cut short")
    if header[257:263] != b"ustar\0" or header[156:157] != b"0":
        raise ShardError(f"{path}: has a member that is no plain USTAR file (type {header[156:157]!r})")
    size, checksum = (_octal(header[start:end], path) for start, end in ((124, 136), (148, 156)))
    if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise ShardError(f"{path}: has a header whose checksum is wrong")
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    if header[345:500].strip(b"\0"):
        raise ShardError(f"{path}: member {name!r} lies in a folder; a shard has none")
    if size > MOST_MEMBER_BYTES:
        raise ShardError(f"{path}: member {name!r} claims {size:,} bytes")
    return name, size


def _octal(field: bytes, path: str) -> int:
    """A number of a header: octal digits alone; Python's int() would take a sign, and GNU tar's binary numbers no."""
    digits = field.strip(b" \0")
    if not _NUMBER.match(digits):
        raise ShardError(f"{path}: has a header with the number {digits!r}, which cannot be read")
    return int(digits, 8)


def _header(name: str, size: int) -> bytes:
    spelled = name.encode("ascii")
    assert len(spelled) <= 100, "a member's name must fit into its header"
    start = spelled.ljust(100, b"\0") + _OWNER_AND_MODE + b"%011o\0" % size + _TIME
    checksum = sum(start) + sum(_AFTER_CHECKSUM) + 7 * ord(" ")
    return start + b"%06o\0" % checksum + _AFTER_CHECKSUM
