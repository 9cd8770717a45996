"""A Prefect server of our own, temporary or in the background, and where the configured one is.

Prefect's ephemeral mode is not used: its start is timed too tightly for a small machine. The server keeps its database
in our home folder, because a fresh database costs ten seconds; the history of runs stays with it.
"""

import fcntl
import os
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from flows.home import free_port, home, recorded
from schemas.errors import RunError

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 10

# Such a process ends with its parent, however that ends: then the pipe that is its standard input is closed.
WATCHED = """
import os, sys, threading
def watch():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
"""
_SERVE = """
import sys, uvicorn
uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]),
            log_level="warning")
"""


def configured_url() -> str | None:
    """The address of the Prefect server that the user configured (environment or profile), or that `up` started."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    if found := recorded("prefect"):
        return found.address
    return _profile_url()


def _profile_url() -> str | None:
    """What Prefect's active profile says; read here because importing Prefect takes seconds."""
    folder = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    with suppress(OSError, ValueError):
        profiles = tomllib.loads((folder / "profiles.toml").read_text())
        active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
        return profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return None


def answers(url: str, timeout_s: float = 3) -> bool:
    """Whether a Prefect server answers there."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it is there, and wants the key that Prefect's client will send
    except (OSError, ValueError):
        return False


class PrefectServer:
    """A Prefect server in a process of its own."""

    def __init__(self, *, background: bool = False, port: int | None = None) -> None:
        self._port = port or free_port()
        self._log = home() / "prefect.log"
        with open(self._log, "ab") as log:
            self._process = self._launch(log, background)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """What PREFECT_API_URL must say once it answers."""
        return f"http://127.0.0.1:{self._port}/api"

    def wait(self) -> str:
        """Its address, when it answers. Raises RunError where it does not start."""
        end = time.monotonic() + _START_TIMEOUT_S
        while not answers(self.url, 1):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RunError(f"the Prefect server did not start; its log is {self._log}")
            time.sleep(0.05)
        return self.url

    def stop(self) -> None:
        """Stop it."""
        stop_process(self._process)

    def _launch(self, log: IO[bytes], background: bool) -> "subprocess.Popen[bytes]":
        folder = home() / "prefect"
        folder.mkdir(exist_ok=True)
        env = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "PREFECT_PROFILE")}
        env |= {"PREFECT_HOME": str(folder), "PREFECT_LOGGING_SERVER_LEVEL": "WARNING", "DO_NOT_TRACK": "1"}
        env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_UI_API_URL": self.url}
        return subprocess.Popen(
            [sys.executable, "-c", _SERVE if background else WATCHED + _SERVE, str(self._port)],
            stdin=subprocess.DEVNULL if background else subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=env,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is ours to handle
        )


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Let only one process of this user do `what` at a time: two servers must not make one database at once."""
    with open(home() / f"{what}.lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def stop_process(process: "subprocess.Popen[bytes]") -> None:
    """End a child: asked first, killed after ten seconds."""
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
