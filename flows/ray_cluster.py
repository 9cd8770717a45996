"""Ray: a local one that ends with this process, one in the background, or somebody's cluster."""

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from flows.home import free_port, home
from flows.prefect_server import stop_process
from schemas.errors import InputError, RunError

_START_TIMEOUT_S = 90


def quiet() -> None:
    """Let Ray log errors only: what matters of the rest is said by us."""
    logging.getLogger("ray").setLevel(logging.ERROR)


def start_local() -> None:
    """Start Ray on this machine; `shut_down` or the end of this process stops it. Raises RunError."""
    import ray

    for last in (False, True):
        try:
            # Without "local" Ray would look for a cluster that ran here before, and wait for it for minutes.
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except (RuntimeError, OSError) as error:  # on a busy machine its processes miss their own deadlines
            ray.shutdown()
            if last:
                raise RunError(
                    f"Ray did not start: {_first_line(error)}; try again, or run with --executor in-process"
                ) from error


def connect(address: str, store: Path, *, ours: bool) -> None:
    """Connect to a cluster and check that each of its nodes sees the store. Raises InputError.

    `ours` is what `pairmill up` started on this machine: it has this installation. To another cluster the packages
    that tasks need are sent along; what they depend on must be installed there.
    """
    _require_listener(address)
    if ours:
        os.environ |= token_environment()
    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=None if ours else _our_packages(),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster can be reached there ({_first_line(error)})"
        ) from error
    if not ours:
        _require_shared(store, address)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_listener(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--ray-address {address}: write it as host:port, for example 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(f"--ray-address {address}: nobody answers there ({error}); is the cluster up?") from error


def shut_down() -> None:
    """Disconnect; stop Ray if it is ours."""
    import ray

    ray.shutdown()


def _our_packages() -> dict[str, Any]:
    import curation
    import schemas

    packages = [str(Path(package.__path__[0])) for package in (curation, schemas)]
    return {"py_modules": packages, "excludes": ["__pycache__"]}


def _require_shared(store: Path, address: str) -> None:
    """Refuse a store that some node of the cluster does not see."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = store / "tmp" / f"probe-{uuid.uuid4().hex}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    try:
        exists = ray.remote(os.path.exists)
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        seen = {
            host: exists.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, False)).remote(
                str(probe)
            )
            for node, host in nodes.items()
        }
        blind = sorted(host for host, handle in seen.items() if not ray.get(handle))
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise InputError(
            f"store {store}: is not visible from {', '.join(blind)} of the Ray cluster {address}; name a store on a "
            "file system that every node mounts at this path, with --store"
        )


def token_environment() -> dict[str, str]:
    """The environment under which Ray's processes trust each other and nobody else: the port executes code."""
    path = home() / "ray_token"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def forget_address(address: str) -> None:
    """Take away the note that `ray start` left for other programs, if it is about a head of ours."""
    note = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    with contextlib.suppress(OSError):
        if note.read_text().strip().rpartition(":")[2] == address.rpartition(":")[2]:
            note.unlink()


class RayHead:
    """A Ray head in the background."""

    def __init__(self) -> None:
        self._log = home() / "ray.log"
        port = free_port()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
        command += ["--include-dashboard=false", "--disable-usage-stats"]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | token_environment() | {"RAY_USAGE_STATS_ENABLED": "0"},
                cwd=home(),
                start_new_session=True,
            )
        self.address = f"127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def wait(self) -> None:
        """Return when it takes drivers. Raises RunError where it does not start."""
        end = time.monotonic() + _START_TIMEOUT_S
        while b"Ray runtime started" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RunError(f"Ray did not start; its log is {self._log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it and what it started."""
        stop_process(self._process)
