"""What lies in a folder of pictures, in chunks that stay as they are when others grow."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curation.sources.samples import PICTURE_BYTES, PICTURES, TEXT_BYTES, TEXTS, Sample
from curation.storage.store import file_sha256

CHUNK_ROWS = 1_024  # on average
_LARGEST_CHUNK_ROWS = 4 * CHUNK_ROWS


@dataclass(frozen=True)
class Entry:
    """A picture: its path below the folder, and the paths of the files beside it by extension."""

    name: str
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def printable(self) -> str:
        """The path as text that Arrow can hold: bytes that are no UTF-8 are escaped."""
        return os.fsencode(self.name).decode(errors="backslashreplace")

    def sample(self, root: str, with_picture: bool) -> Sample:
        """Its bytes and those beside it, each within its bound."""
        sample = Sample(self.printable)
        for extension, name in self.beside.items():
            sample.members[extension] = _read(sample, root, name, f"its .{extension}", TEXT_BYTES)
        if with_picture:
            extension = _extension(self.name)
            # What a captions file names is a picture, whatever it is called.
            extension = extension if extension in PICTURES else PICTURES[0]
            sample.members[extension] = _read(sample, root, self.name, "it", PICTURE_BYTES)
        text = sample.members.get("txt")
        if text is not None:
            sample.members["txt"] = text.removesuffix(b"\n").removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf")
        return sample

    def digest(self, root: str) -> tuple[int, list[list[object]]]:
        """Bytes in all, and name, length and SHA-256 of each file."""
        files: list[list[object]] = []
        length = 0
        for name in (self.name, *sorted(self.beside.values())):
            path = Path(root, name)
            content = _sha256(path)
            size = path.stat().st_size if content else 0
            files.append([os.fsencode(name).hex(), size, content])
            length += size
        return length, files


def list_folder(root: str) -> dict[str, Entry]:
    """The pictures below a folder by their paths. Hidden names and linked folders are passed over."""
    found = {}
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(os.path.relpath(folder, root))
        visible = sorted(name for name in names if not name.startswith("."))
        beside: dict[str, dict[str, str]] = {}
        for name in visible:
            if _extension(name) in TEXTS:
                stem = os.path.splitext(name)[0]
                beside.setdefault(stem, {}).setdefault(_extension(name), (below / name).as_posix())
        for name in visible:
            if _extension(name) in PICTURES:
                path = (below / name).as_posix()
                found[path] = Entry(path, beside.get(os.path.splitext(name)[0], {}))
    return found


def chunks_of(entries: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Entries in chunks of about 1,000; a chunk ends after a name whose digest says so, whatever stands before it."""
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        number = int.from_bytes(hashlib.sha256(os.fsencode(entry.name)).digest()[:8], "big")
        if number % CHUNK_ROWS == 0 or len(chunk) == _LARGEST_CHUNK_ROWS:
            yield tuple(chunk)
            chunk = []
    if chunk:
        yield tuple(chunk)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _raise(error: OSError) -> None:
    raise error


def _read(sample: Sample, root: str, name: str, what: str, most_bytes: int) -> bytes | None:
    if name.startswith("/") or ".." in name.split("/"):
        sample.fail("refused", f"{sample.origin}: {what} leads out of the folder")
        return None
    path = Path(root, name)
    try:
        if not path.is_file():
            sample.fail("missing", f"{sample.origin}: {what} is not in the folder")
            return None
        if path.stat().st_size > most_bytes:
            size = path.stat().st_size
            sample.fail("too_large", f"{sample.origin}: {what} has {size:,} bytes, more than {most_bytes:,}")
            return None
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name that a captions file gives
        sample.fail("unreadable", f"{sample.origin}: {what} cannot be read: {error}")
        return None


def _sha256(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except (OSError, ValueError):
        return None
