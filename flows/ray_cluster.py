"""Ray: a local one that ends with this process, one in the background, or somebody's cluster."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from flows.home import home
from flows.prefect_server import WATCHED, stop_process
from schemas.errors import InputError, RunError

# Two attempts: on a busy machine Ray's processes miss their own deadlines.
_OWN = """
import signal, sys, threading
import ray
def start():
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    start()
except Exception as error:
    print(error, file=sys.stderr)
    ray.shutdown()
    start()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(ray.get_runtime_context().gcs_address, flush=True)
threading.Event().wait()
"""


def connect(address: str, store: Path, *, ours: bool) -> None:
    """Connect to a cluster and check that each of its nodes sees the store. Raises InputError.

    `ours` is what `pairmill up` started on this machine: it has this installation. To another cluster the packages
    that tasks need are sent along; what they depend on must be installed there.
    """
    _require_listener(address)
    if ours:
        os.environ |= token_environment()
    elif _has_token():
        # A head wants the token by default, a driver sends it only when told to; both read this before `import ray`.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
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
            f"--ray-address {address}: no Ray cluster takes this driver there ({_first_line(error)}); if it asks for a "
            "token, put the token into ~/.ray/auth_token and set RAY_AUTH_MODE=token"
        ) from error
    if not ours:
        _require_shared(store, address)


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


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


class LocalRay:
    """Ray on this machine, owned by a process of its own.

    This process never starts Ray's daemons itself: that forks, and after Arrow and DuckDB have worked, the fork of a
    process with their threads crashes. Ray's daemons end with their owner, and the owner, unless it runs in the
    background, with us.
    """

    def __init__(self, *, background: bool = False) -> None:
        log_path = home() / "ray.log"
        with open(log_path, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _OWN if background else WATCHED + _OWN],
                stdin=subprocess.DEVNULL if background else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | token_environment() | {"RAY_USAGE_STATS_ENABLED": "0"},
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        self._log = log_path
        self.address: str | None = None  # once it takes drivers

    @property
    def pid(self) -> int:
        """The number of the owner's process."""
        return self._process.pid

    def wait(self) -> str:
        """The address, when it takes drivers. Raises RunError where it does not start."""
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip() or None
        if self.address is None:
            self.stop()
            raise RunError(f"Ray did not start; its log is {self._log}. `--executor in-process` needs no Ray")
        return self.address

    def stop(self) -> None:
        """Stop it and what it started."""
        stop_process(self._process)
