"""The store on a local or shared file system: files named by content, records put if absent.

A file is written under a temporary name, flushed, and linked into place; `link` fails where the name exists, which
makes it a put-if-absent that is atomic on POSIX and on NFS. A process killed anywhere leaves at most temporary files.
Nothing is replaced, but by a purge (`replace`), which rewrites what lists a forgotten row.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.storage import layout
from schemas.errors import InputError, StoreError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRef:
    """A file of the store: its name relative to the store, its length and its SHA-256."""

    name: str
    bytes: int
    sha256: str

    def record(self) -> dict[str, Any]:
        """The reference as it stands in commit records."""
        return asdict(self)


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical spelling, hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class NewFile:
    """A file on its way into the store; `ref` says where it lies once `Store.new_file` has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ref: FileRef | None = None

    @property
    def ref(self) -> FileRef:
        """Where the file lies."""
        assert self._ref is not None, "the file is not finished"
        return self._ref


class Store:
    """One store. Cheap to make, picklable, safe to use from many processes at once."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @classmethod
    def open(cls, root: str | Path) -> "Store":
        """The store at `root`, made if there is none.

        Raises InputError where no folder can be made there, StoreError where its format is newer than this program.
        """
        store = cls(root)
        require_no_file(store.root)
        try:
            if store.get("store.json") is None:
                store.put("store.json", {"format": layout.FORMAT})
            found = store.get("store.json")
        except OSError as error:
            raise InputError(f"store {root}: cannot be used: {error.strerror}; name another with --store") from error
        if not isinstance(found, dict) or found.get("format") != layout.FORMAT:
            raise StoreError(
                f"store {root}: has format {(found or {}).get('format')!r}, this program reads format {layout.FORMAT}; "
                "use the version of pairmill that wrote it, or a newer one"
            )
        return store

    @classmethod
    def existing(cls, root: str | Path) -> "Store":
        """The store at `root`, for reading. Raises InputError where there is none."""
        require_no_file(Path(root))
        if not (Path(root) / "store.json").exists():
            raise InputError(
                f"store {root}: there is no store here; run a specification first, or name one with --store"
            )
        return cls.open(root)

    def path(self, name: str) -> Path:
        """Where a name of the store lies."""
        return self.root / name

    def get(self, name: str) -> Any:
        """The record of that name, or None."""
        try:
            return json.loads(self.path(name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{self.path(name)}: is no JSON record ({error}); the store is damaged") from error

    def put(self, name: str, record: Any) -> bool:
        """Put a record if none of that name is there; say whether it was put."""
        with self._temporary(".json") as path:
            _write_flushed(path, canonical_json(record))
            return self.link(path, name)

    def replace(self, path: Path, data: bytes) -> None:
        """Put other bytes in the place of a file, at once. For `forget --purge`, which has the store alone."""
        with self._temporary(path.suffix) as fresh:
            _write_flushed(fresh, data)
            os.replace(fresh, path)
        _flush_folder(path.parent)

    @contextlib.contextmanager
    def new_file(self, suffix: str) -> Iterator[NewFile]:
        """A path to write to; on leaving, the file lies in the store under its content's digest."""
        with self._temporary(suffix) as path:
            new = NewFile(path)
            yield new
            with open(path, "rb+") as stream:
                os.fsync(stream.fileno())
            sha256 = file_sha256(path)
            ref = FileRef(layout.blob(sha256, suffix), path.stat().st_size, sha256)
            self.link(path, ref.name)
            new._ref = ref

    def link(self, path: Path, name: str) -> bool:
        """Link a flushed file to a name of the store if the name is free; say whether it was."""
        target = self.path(name)
        for _ in range(2):
            try:
                os.link(path, target)
                _flush_folder(target.parent)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
        raise StoreError(f"{target}: its folder cannot be made")

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A folder for what does not outlive its block."""
        folder = self.path("tmp") / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _temporary(self, suffix: str) -> Iterator[Path]:
        folder = self.path("tmp")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}{suffix}"
        try:
            yield path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    f"store {self.root}: the disk is full; what is committed stays. Make room and run the same again"
                ) from error
            raise
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool = False, name: str = "lock", wait: bool = False) -> Iterator[None]:
        """Hold a lock: shared for runs; exclusive, refused at once when held (unless `wait`), for prune and forget."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as stream:
            try:
                fcntl.flock(
                    stream, fcntl.LOCK_SH if not exclusive else fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
                )
            except BlockingIOError:
                raise StoreError(
                    f"store {self.root}: a run is using it, or prune or forget; try again when that has ended "
                    "(`pairmill status` shows runs)"
                ) from None
            yield


def require_no_file(root: Path) -> None:
    """Raise InputError where a store's path, or a folder that it should lie in, is a file."""
    taken = next((path for path in (root, *root.parents) if os.path.isfile(path)), None)
    if taken is not None:
        raise InputError(f"store {root}: {taken} is a file, and a store is a folder; name another with --store")


def _write_flushed(path: Path, data: bytes) -> None:
    with open(path, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
