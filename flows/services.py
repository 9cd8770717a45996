"""Prefect and Ray, started side by side: temporary ones for one run, or in the background by `up`."""

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows import ray_cluster
from flows.home import Background, forget, home, record, recorded
from flows.prefect_server import PrefectServer, answers, configured_url, one_at_a_time
from flows.status_file import running
from schemas.errors import RunError

NAMES = ("prefect", "ray")


@dataclass
class Services:
    """What one run needs, started when first asked for and stopped by `close`."""

    store: Path
    ray_address: str | None = None
    wants_prefect: bool = True
    warnings: list[str] = field(default_factory=list)
    _threads: ThreadPoolExecutor | None = None
    _ray: "Future[None] | None" = None
    _prefect: "Future[str | None] | None" = None
    _server: PrefectServer | None = None
    _local_ray: ray_cluster.LocalRay | None = None

    def begin(self) -> None:
        """Start what is not there, side by side, and do not wait for it."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="services")
            self._prefect = self._threads.submit(self._reach_prefect)
            self._ray = self._threads.submit(self._reach_ray)

    def ray(self) -> None:
        """Return when this process is connected to Ray."""
        self.begin()
        assert self._ray is not None
        self._ray.result()

    def prefect_url(self) -> str | None:
        """The address of a Prefect server that answers, or None: the run goes on without it."""
        self.begin()
        assert self._prefect is not None
        return self._prefect.result()

    def close(self) -> None:
        """Stop what was started."""
        if self._threads is None:
            return
        if self._server is not None:
            self._server.stop()
        if self._local_ray is not None and self._local_ray.address is None:
            self._local_ray.stop()  # still on its way: nobody is connected
        self._threads.shutdown(wait=True)
        ray_cluster.shut_down()
        if self._local_ray is not None:
            self._local_ray.stop()
        self._threads = None

    def _reach_ray(self) -> None:
        ours = recorded("ray")
        if self.ray_address:
            ray_cluster.connect(self.ray_address, self.store, ours=False)
        elif ours:
            ray_cluster.connect(ours.address, self.store, ours=True)
        else:
            self._local_ray = ray_cluster.LocalRay()
            ray_cluster.connect(self._local_ray.wait(), self.store, ours=True)

    def _reach_prefect(self) -> str | None:
        if not self.wants_prefect:
            return None
        url = configured_url()
        if url is not None:
            if answers(url):
                return url
            self.warnings.append(f"the Prefect server {url} cannot be reached; the run goes on without it")
            return None
        try:
            with one_at_a_time("prefect"):
                self._server = PrefectServer()
                return self._server.wait()
        except RunError as error:
            self.warnings.append(f"{error}; the run goes on without it")
            return None


def up() -> dict[str, Background]:
    """Start what does not run yet in the background; return both with their addresses."""
    with one_at_a_time("up"):
        server = None if recorded("prefect") else PrefectServer(background=True)
        local = None if recorded("ray") else ray_cluster.LocalRay(background=True)
        try:
            if local is not None:
                record("ray", Background.of(local.pid, local.wait()))
            if server is not None:
                record("prefect", Background.of(server.pid, server.wait()))
        except BaseException:
            for begun in (local, server):
                if begun is not None:
                    begun.stop()
            raise
        return standing()


def standing() -> dict[str, Background]:
    """What runs in the background."""
    return {name: found for name in NAMES if (found := recorded(name)) is not None}


def down(*, under_runs: bool = False) -> list[str]:
    """Stop what `up` started; return the names of what was running.

    Raises RunError while a run has its workers there, unless runs may end with it.
    """
    import psutil

    runs = [f"{run['name']} on {run['store']} (process {run['pid']})" for run in running(None) if _is_user(run)]
    if runs and not under_runs:
        raise RunError(
            f"down: {', '.join(runs)} goes on and may have its workers there; `pairmill status` shows how far it is. "
            "Wait for it, or stop all the same with --yes: what is committed stays"
        )
    stopped = []
    for name, found in standing().items():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(found.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, left = psutil.wait_procs(family, timeout=40)
            for survivor in left:
                survivor.kill()
        stopped.append(name)
    for name in NAMES:
        forget(name)
    return stopped


def _is_user(run: dict[str, Any]) -> bool:
    return run.get("on_background_ray", False) and run["host"] == socket.gethostname()


def log_folder() -> Path:
    """Where the services' logs lie."""
    return home()
