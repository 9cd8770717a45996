"""The folder in which background services leave their addresses and logs: $PAIRMILL_HOME or ~/.pairmill."""

import json
import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Background:
    """A process in the background; `created` tells it from a later one with the same number."""

    pid: int
    created: float
    address: str

    @classmethod
    def of(cls, pid: int, address: str) -> "Background":
        """The record of a process that runs now."""
        import psutil

        return cls(pid, psutil.Process(pid).create_time(), address)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return is_alive(self.pid, self.created)


def is_alive(pid: int, created: float) -> bool:
    """Whether the process with that number and time of creation runs on this machine."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def home() -> Path:
    """The folder, made if there is none; a temporary one where the home folder cannot be written."""
    named = os.environ.get("PAIRMILL_HOME")
    candidates = [Path(named)] if named else [Path.home() / ".pairmill"]
    candidates.append(Path(tempfile.gettempdir()) / f"pairmill-{os.getuid()}")
    for folder in candidates:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder.absolute()
    return candidates[-1].absolute()


def recorded(service: str) -> Background | None:
    """What `pairmill up` started under that name (`prefect` or `ray`), if it still runs."""
    try:
        found = Background(**json.loads((home() / f"{service}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive else None


def record(service: str, process: Background) -> None:
    """Remember what `pairmill up` started."""
    replace_json(home() / f"{service}.json", asdict(process))


def forget(service: str) -> None:
    """Remember it no longer."""
    (home() / f"{service}.json").unlink(missing_ok=True)


def replace_json(path: Path, value: Any) -> None:
    """Write a small volatile file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
