"""What runs, told to other terminals: a small volatile file per run in `<store>/tmp/status/`, no part of the record.

A pointer to each file lies in our home folder, so that `pairmill status` finds the runs of this machine by itself.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.home import home, is_alive, replace_json
from flows.progress import Tally, as_record

_EVERY_S = 1.0


class StatusFile:
    """A view that keeps a run's status file up to date, and takes it away at the end."""

    def __init__(self, store: Path, *, on_background_ray: bool = False) -> None:
        import psutil

        self._path = store.absolute() / "tmp" / "status" / f"{uuid.uuid4().hex}.json"
        self._pointer = home() / "runs" / self._path.name
        self._last = 0.0
        self._about: dict[str, Any] = {
            "store": str(store.absolute()),
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
            "host": socket.gethostname(),
            "started": time.time(),
            "on_background_ray": on_background_ray,
        }
        with suppress(OSError):
            replace_json(self._pointer, {"status": str(self._path)})

    def show(self, tally: Tally, *, now: bool) -> None:
        """Write the file, at most once a second."""
        moment = time.time()
        if moment - self._last < _EVERY_S and not now:
            return
        self._last = moment
        with suppress(OSError):  # a full disk is the run's to report, not ours
            replace_json(self._path, self._about | {"updated": moment} | as_record(tally, moment))

    def close(self) -> None:
        """Take the file away."""
        for path in (self._path, self._pointer):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def running(store: Path | None) -> list[dict[str, Any]]:
    """The runs that go on now: on one store (on any machine), or all of this machine's. Oldest first."""
    records = [record for path in _status_files(store) if (record := _read(path)) is not None]
    return sorted((record for record in records if _goes_on(record)), key=lambda record: record["started"])


def _status_files(store: Path | None) -> Iterator[Path]:
    if store is not None:
        yield from sorted((store / "tmp" / "status").glob("*.json"))
        return
    for pointer in sorted((home() / "runs").glob("*.json")):
        found = _read(pointer)
        if found is not None:
            yield Path(found["status"])


def _goes_on(record: dict[str, Any]) -> bool:
    """Whether the run's process lives; of another machine's, whether it wrote within the last minute."""
    if record["host"] == socket.gethostname():
        return is_alive(record["pid"], record["created"])
    return bool(time.time() - record["updated"] < 60)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
