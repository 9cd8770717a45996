"""The executor on Ray: one task per part, and a pool of actors for operators that are dear to open."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from curation.execution.executor import WorkerDied
from curation.execution.worker import Opened

_DEATHS = (WorkerCrashedError, ActorDiedError, ActorUnavailableError, OutOfMemoryError)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _task(function: Callable[..., Any], task: Any, folder: str) -> Any:
    _enter(folder)
    return function(task, actor=False, opened=Opened())


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    def __init__(self, folder: str) -> None:
        _enter(folder)
        self._opened = Opened()

    def run(self, function: Callable[..., Any], task: Any) -> Any:
        return function(task, actor=True, opened=self._opened)


@contextlib.contextmanager
def _signals_as_raised() -> Iterator[None]:
    """What a signal handler raises inside Ray's compiled code comes out wrapped; unwrap it."""
    try:
        yield
    except SystemError as error:
        raise error.__cause__ or error from None


def _enter(folder: str) -> None:
    """Work where the driver works, so that relative paths to sources and weights mean the same."""
    with contextlib.suppress(OSError):
        os.chdir(folder)


class OnRay:
    """Runs tasks on the Ray that this process is connected to; attempts are counted by us, never by Ray."""

    def __init__(self, *, actors: int = 1, actor_cpus: float = 1, actor_gpus: float = 0) -> None:
        self._actor_options: Mapping[str, Any] = {"num_cpus": actor_cpus, "num_gpus": actor_gpus}
        self._most_actors = actors
        self._actors: list[Any] = []
        self._load: dict[int, int] = {}  # handles in flight per actor
        self._actor_of: dict[Any, int] = {}

    def slots(self, actor: bool) -> int:
        """Cores of the cluster, or the size of the pool of actors."""
        return self._most_actors if actor else max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, function: Callable[..., Any], task: Any, *, actor: bool) -> Any:
        """Start a task on a free core, or on the actor with the least to do."""
        if not actor:
            return _task.remote(function, task, os.getcwd())
        while len(self._actors) < self._most_actors:
            self._load[len(self._actors)] = 0
            self._actors.append(_Actor.options(**self._actor_options).remote(os.getcwd()))  # type: ignore[attr-defined]
        number = min(self._load, key=lambda n: self._load[n])
        self._load[number] += 1
        handle = self._actors[number].run.remote(function, task)
        self._actor_of[handle] = number
        return handle

    def wait(self, handles: list[Any]) -> list[tuple[Any, Callable[[], Any]]]:
        """Wait for the first finished task."""
        with _signals_as_raised():
            done, _ = ray.wait(handles, num_returns=1)
        return [(handle, partial(self._result, handle)) for handle in done]

    def close(self) -> None:
        """Stop the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _result(self, handle: Any) -> Any:
        number = self._actor_of.pop(handle, None)
        if number is not None:
            self._load[number] -= 1
        try:
            with _signals_as_raised():
                return ray.get(handle)
        except _DEATHS as error:
            if number is not None:
                self._actors[number] = _Actor.options(**self._actor_options).remote(os.getcwd())  # type: ignore[attr-defined]
            raise WorkerDied from error
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
