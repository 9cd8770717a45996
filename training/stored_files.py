"""Files of curated sets, on this machine or behind any URL that fsspec knows."""

import glob
import tempfile
from pathlib import Path
from typing import Any

from schemas.errors import InputError, RunError
from schemas.manifest import Manifest, find_manifests, newest_version, read_manifest

_NEWEST = "manifest.json"


def is_url(location: str) -> bool:
    """Whether fsspec is asked for it; `file://` is a path of this machine (`local`)."""
    return "://" in location


def local(location: str) -> str:
    """The path behind a `file://` URL; everything else as it is."""
    if not location.startswith("file://"):
        return location
    from fsspec.implementations.local import LocalFileSystem

    return str(LocalFileSystem._strip_protocol(location))


def beside(location: str, name: str) -> str:
    """The file of that relative name in the folder of `location`."""
    return f"{location.rpartition('/')[0]}/{name}" if is_url(location) else str(Path(location).parent / name)


def read_file(location: str) -> bytes:
    """All bytes of a file. Raises RunError."""
    try:
        if not is_url(location):
            return Path(location).read_bytes()
        filesystem, path = _filesystem(location)
        data: bytes = filesystem.cat_file(path)
        return data
    except OSError as error:
        raise RunError(
            f"{location}: cannot be read: {error.strerror or error}; `pairmill verify` says what is missing"
        ) from error


def manifests_of(name: str) -> list[str]:
    """Where the manifests lie that a name stands for: a folder, a version of one (`folder@version`), a glob, a file.

    Of a folder it is the file of its newest version, which no later run replaces. Raises InputError.
    """
    name = local(name)
    if not is_url(name):
        return [str(newest_version(path)) for path in find_manifests(name)]
    filesystem, path = _filesystem(name)
    folder, _, last = path.rstrip("/").rpartition("/")
    bare, _, version = last.partition("@")
    if last.endswith(".json"):
        pattern = path
    else:
        pattern = f"{folder}/{bare}/{f'{version}.json' if version else _NEWEST}".lstrip("/" if not folder else "")
    try:
        found = sorted(filesystem.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        missing = not found or not filesystem.exists(found[0])
    except OSError as error:
        raise InputError(f"data set {name}: cannot be reached: {error}") from error
    if missing:
        raise InputError(f"data set {name}: there is no {pattern}; name the folder of a curated set")
    return [_newest(filesystem, filesystem.unstrip_protocol(one)) for one in found]


def manifest_at(location: str) -> Manifest:
    """The manifest in that file. Raises InputError."""
    if not is_url(location):
        return read_manifest(location)
    try:
        data = read_file(location)
    except RunError as error:
        raise InputError(f"manifest {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "manifest.json")
        copy.write_bytes(data)
        try:
            return read_manifest(copy)
        except InputError as error:
            raise InputError(str(error).replace(str(copy), location)) from error


def _newest(filesystem: Any, location: str) -> str:
    if not location.endswith(f"/{_NEWEST}"):
        return location
    version = beside(location, f"{manifest_at(location).version}.json")
    return version if filesystem.exists(version) else location


def _filesystem(location: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(location)
    except (ImportError, ValueError) as error:  # a package that is not installed, a protocol that nobody knows
        raise InputError(f"{location}: no file system for it: {error}") from error
    return filesystem, path
