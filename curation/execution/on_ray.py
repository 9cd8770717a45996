"""The executor on Ray: one task per part, and a pool of actors for operators that are dear to open."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    RpcError,
    WorkerCrashedError,
)

from curation.execution.executor import WorkerDied
from curation.execution.hosts_on_ray import HostsOnRay, Reach
from curation.execution.needs import Needs, WorkerNeeds
from curation.execution.worker import Opened
from schemas.errors import RunError

_DEATHS = (
    WorkerCrashedError,
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
)
_ENDINGS = (LocalRayletDiedError, RaySystemError, RpcError)  # of Ray itself, not of a worker
_LOOK_EVERY_S = 3.0
_MOST_REFUSALS = 4  # a head may be started again; after a minute Ray ends this process without a word
_GB = 1 << 30


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _task(function: Callable[..., Any], task: Any, folder: str, hosts: Reach | None) -> Any:
    _enter(folder)
    return function(task, actor=False, opened=Opened(hosts))


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    def __init__(self, folder: str, hosts: Reach | None) -> None:
        _enter(folder)
        self._opened = Opened(hosts)

    def run(self, function: Callable[..., Any], task: Any) -> Any:
        return function(task, actor=True, opened=self._opened)


@contextlib.contextmanager
def _calling_ray() -> Iterator[None]:
    """Raise RunError where Ray itself is gone.

    What a signal handler raises inside Ray's compiled code comes out wrapped; it is unwrapped.
    """
    try:
        yield
    except SystemError as error:
        raise error.__cause__ or error from None
    except _ENDINGS as error:
        raise _ended((str(error).strip().splitlines() or [type(error).__name__])[0]) from error


def _ended(said: str) -> RunError:
    return RunError(
        f"Ray ended under the run ({said}); what is committed stays, run the same again: `pairmill down`, a cluster "
        "that is stopped, or a machine that runs out of memory ends it"
    )


def _refuses() -> bool:
    """Whether the head of the cluster takes no connection; one that is merely slow does not count."""
    host, _, port = getattr(ray.get_runtime_context(), "gcs_address", "").rpartition(":")
    if not port:
        return False  # connected by a Ray client, which says itself that it is cut off
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_EVERY_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _enter(folder: str) -> None:
    """Work where the driver works, so that relative paths to sources and weights mean the same."""
    with contextlib.suppress(OSError):
        os.chdir(folder)


@dataclass(eq=False)
class _Kept:
    """An actor, and what it has to do in the order in which it does it."""

    actor: Any
    queue: list[Any] = field(default_factory=list)
    culprit: Any = None  # what it was at when it died

    def blames(self, handle: Any) -> bool:
        """Whether a task that was lost with the actor is the one that it was at."""
        if self.culprit is None:
            self.culprit = next(mine for mine in self.queue if mine == handle or not _finished(mine))
        return bool(self.culprit == handle)


class OnRay:
    """Runs tasks on the Ray that this process is connected to; attempts are counted by us, never by Ray."""

    def __init__(self, needs: WorkerNeeds | None = None) -> None:
        self._wanted = needs or WorkerNeeds()
        self._actors: list[_Kept] = []
        self._actor_of: dict[Any, _Kept] = {}
        self._tasks: set[Any] = set()
        self._cpus, self._look_at = 1.0, 0.0
        self._hosts = HostsOnRay() if self._wanted.hosts else None

    @property
    def spreads(self) -> bool:
        """Its workers are those of a cluster."""
        return True

    def share(self, value: Any) -> Callable[[], Any]:
        """A way to the value in the cluster's object store, which holds it once per node."""
        with _calling_ray():
            return partial(_fetched, [ray.put(value)])

    def slots(self, actor: bool) -> int:
        """Tasks that find room in the cluster, or the size of the pool of actors."""
        if actor:
            return self._needs.actors
        task = self._needs.task
        return max(1, int(self._processors() / task.cpus)) if task.cpus else max(1, int(self._processors()))

    def _processors(self) -> float:
        """How many the cluster has; asked again after a while, for it may grow, and not of a head that is gone.

        A head that does not answer is asked for a minute, and then this process ends without a word.
        """
        if time.monotonic() >= self._look_at and not _refuses():
            with _calling_ray():
                self._cpus = float(ray.cluster_resources().get("CPU", 1))
            self._look_at = time.monotonic() + _LOOK_EVERY_S
        return self._cpus

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> Any:
        """Start a task where there is room, or on the actor with the least to do."""
        with _calling_ray():
            return self._submit(function, task, actor)

    def _submit(self, function: Callable[..., Any], task: Any, actor: bool) -> Any:
        if not actor:
            handle = _task.options(**_options(self._needs.task)).remote(function, task, os.getcwd(), self._reach)
            self._tasks.add(handle)
            return handle
        kept = min(self._actors, key=lambda kept: len(kept.queue), default=None)
        if kept is None or (kept.queue and len(self._actors) < self._needs.actors):
            options = _options(self._needs.actor)
            actor = _Actor.options(**options).remote(os.getcwd(), self._reach)  # type: ignore[attr-defined]
            kept = _Kept(actor)
            self._actors.append(kept)
        handle = kept.actor.run.remote(function, task)
        kept.queue.append(handle)
        self._actor_of[handle] = kept
        return handle

    def wait(self, handles: list[Any]) -> list[tuple[Any, Callable[[], Any]]]:
        """Wait for the first finished task. Raises RunError where Ray is gone: without one it would wait in vain."""
        done: list[Any] = []
        refusals = 0
        while not done:
            with _calling_ray():
                done, _ = ray.wait(handles, num_returns=1, timeout=_LOOK_EVERY_S)
            refusals = refusals + 1 if not done and _refuses() else 0
            if refusals == _MOST_REFUSALS:
                raise _ended("nobody answers at its address")
        return [(handle, partial(self._result, handle)) for handle in done]

    def close(self) -> None:
        """Stop the actors, and the tasks that are on their way."""
        if self._tasks or self._actors:
            self._stop()
        self._actors, self._tasks = [], set()
        if self._hosts is not None:
            self._hosts.close()

    def _stop(self) -> None:
        if _refuses():
            return  # they have ended with Ray, which would be asked for a minute
        with contextlib.suppress(*_ENDINGS):
            for kept in self._actors:
                ray.kill(kept.actor)
            for handle in self._tasks:
                ray.cancel(handle, force=True)

    def _result(self, handle: Any) -> Any:
        self._tasks.discard(handle)
        kept = self._actor_of.pop(handle, None)
        try:
            with _calling_ray():
                return ray.get(handle)
        except _DEATHS as error:
            # A task has a process to itself; of what an actor had, only what it was at is to blame.
            raise WorkerDied(blamed=kept is None or self._lost(kept, handle)) from error
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        finally:
            if kept is not None:
                kept.queue.remove(handle)

    def _lost(self, kept: _Kept, handle: Any) -> bool:
        if kept in self._actors:
            self._actors.remove(kept)
            ray.kill(kept.actor)  # it may be out of reach only, and still at work
        return kept.blames(handle)

    @property
    def _reach(self) -> Reach | None:
        return self._hosts.reach() if self._hosts is not None else None

    @cached_property
    def _needs(self) -> WorkerNeeds:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = max(self._wanted.task.gpus, self._wanted.actor.gpus)
        if gpus > max(node.get("GPU", 0) for node in nodes):
            raise RunError(
                f"execution: a worker asks for {gpus:g} GPU, and no node of the Ray cluster has so many; "
                "give the operator fewer, as in `execution: {clip_embed: {gpus: 0}}`"
            )
        most = {name: max(node.get(name, 0) for node in nodes) for name in ("CPU", "memory")}
        return self._wanted.fitted(len(nodes), most["CPU"], most["memory"] / _GB)


def _fetched(held: list[Any]) -> Any:
    """The value behind a reference; in a list, so that Ray does not take it for an argument to wait for."""
    return ray.get(held[0])


def _options(needs: Needs) -> dict[str, Any]:
    return {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": int(needs.memory_gb * _GB)}


def _finished(handle: Any) -> bool:
    """Whether a task has come to its end, well or not."""
    try:
        ray.get(handle, timeout=0)
    except RayTaskError:
        return True
    except (GetTimeoutError, *_DEATHS):
        return False
    return True
