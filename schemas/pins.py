"""Pins: who uses a version of a curated set, noted beside it, so that `prune` leaves it and `explain` can tell.

`<set>/pins/<digest>.json` holds {"version": …, "by": …}; the name is the digest of that, so a pin is put once.
"""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FOLDER = "pins"


@dataclass(frozen=True)
class Pin:
    """One use of a version; whoever removes the file lets the version go."""

    version: str
    by: str
    path: Path


def put_pin(manifest: Path, version: str, by: str) -> None:
    """Note that a version is used; `manifest` is its file. A set that cannot be written to is used without a note."""
    data = json.dumps({"version": version, "by": by}, sort_keys=True, ensure_ascii=False).encode()
    folder = manifest.parent / _FOLDER
    target = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.json"
    fresh = folder / f".{uuid.uuid4().hex}"
    if target.exists():
        return
    try:
        folder.mkdir(exist_ok=True)
        with open(fresh, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            target.hardlink_to(fresh)
    except OSError as error:
        logging.getLogger(__name__).warning("%s: its use is not noted (%s); prune may remove it", manifest, error)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def read_pins(folder: Path) -> Iterator[Pin]:
    """The pins of a set by its folder, in order of name."""
    for path in sorted((folder / _FOLDER).glob("*.json")):
        record = json.loads(path.read_bytes())
        yield Pin(record["version"], record["by"], path)
