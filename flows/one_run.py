"""One run of a specification, act by act, without Prefect: `flows/curate.py` wraps it where Prefect can be had.

    check → ingest → as far as no worker is needed → stages with workers → shards and manifest

Neither Ray nor Prefect is started for what needs no worker: a changed threshold costs seconds.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from curation.job import Job, Result, Wishes
from curation.storage.store import Store, require_no_file
from flows.environment import quiet_environment
from flows.home import recorded
from flows.progress import Progress, View
from flows.services import Services
from flows.status_file import StatusFile
from schemas.pipeline import CurationSpec
from schemas.reading import read_yaml

if TYPE_CHECKING:
    from curation.execution.executor import Executor

_MOMENT_S = 1.0
ExecutorName = Literal["ray", "in-process"]


@dataclass(frozen=True)
class Request:
    """What a run is asked for."""

    spec: str
    store: str | None = None
    limit: int | None = None
    overrides: tuple[str, ...] = ()
    retry: tuple[str, ...] | None = None
    give_up: tuple[str, ...] = ()
    executor: ExecutorName = "ray"
    ray_address: str | None = None
    debug: bool = False

    @property
    def on_background_ray(self) -> bool:
        """Whether its workers would be those of the Ray that `pairmill up` started."""
        return self.executor == "ray" and not self.ray_address and recorded("ray") is not None

    def open_job(self, progress: Progress) -> Job:
        """Check everything that can be known; nothing is written. Raises InputError."""
        spec = read_yaml(self.spec, CurationSpec, overrides=self.overrides).spec
        # Absolute, because workers on a cluster stand in another folder.
        store = Path(self.store or spec.store).absolute()
        require_no_file(store)
        job = Job.open(spec, progress, Wishes(store, self.limit, self.retry, self.give_up))
        progress.begin(spec.name, job.plan)
        return job


@dataclass
class Session:
    """One run under way, with what was started for it. To be used with `with`."""

    request: Request
    job: Job
    progress: Progress
    services: Services
    result: Result | None = None
    error: BaseException | None = None  # what our own part of the work raised
    _executor: "Executor | None" = None
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def open(cls, request: Request, progress: Progress, services: Services | None = None) -> "Session":
        """Check the specification, then take the store. Raises InputError."""
        job = request.open_job(progress)
        session = cls(request, job, progress, services or Services(job.store_path, request.ray_address))
        if services is None:
            session._opened.callback(session.services.close)
        # Runs share the store; `prune` wants it for itself.
        with _told_if_long(
            progress, f"waits for `pairmill prune` or `forget`, which has the store {job.store_path} for itself"
        ):
            session._opened.enter_context(Store.open(job.store_path).lock())
        progress.views.append(StatusFile(job.store_path, on_background_ray=request.on_background_ray))
        return session

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _unhurried(kind):
            self._opened.close()

    def begin(self) -> bool:
        """Ingest, and go as far as no worker is needed; say whether workers are needed for the rest."""
        self.progress.doing("reads the source")
        self.job.start(self.executor)
        self.progress.doing("looks at what is there")
        return not self.job.advance() or self.job.shards_need_workers

    def executor(self) -> "Executor":
        """Where tasks run; started when first asked for."""
        if self._executor is None:
            if self.request.executor == "in-process":
                from curation.execution.in_process import InProcess

                self._executor = InProcess(debug=self.request.debug)
            else:
                self.services.begin()
                self.services.ray()
                _rearm()
                self._executor = _on_ray(self.job)
            self._opened.callback(self._executor.close)
        return self._executor

    def next_stage(self) -> str | None:
        """The name of the next stage that needs workers; None when every row has its fate."""
        with self._ours():
            return None if self.job.advance() else self.job.run.stage_name()

    def run_stage(self) -> None:
        """Run the next stage, or its next block of parts. Raises RunError."""
        with self._ours():
            executor = self.executor()
            self.progress.enter(self.job.run.reached)
            self.job.run.run_stage(executor)

    def finish(self) -> Result:
        """Write the shards and the manifest."""
        with self._ours():
            self.progress.doing("shuffles")
            self.result = self.job.finish(self.executor() if self.job.shards_need_workers else None)
            return self.result

    @contextlib.contextmanager
    def _ours(self) -> Any:
        """Remember what our own work raised, to tell it from what Prefect raises."""
        try:
            yield
        except BaseException as error:
            self.error = error
            raise


def warn_on_stderr(sentence: str) -> None:
    """Say what a run goes on without."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def run(
    request: Request,
    views: Sequence[View] = (),
    warn: Callable[[str], None] = warn_on_stderr,
    services: Services | None = None,
) -> Result:
    """Run a specification to its end. Raises PairmillError; interrupted, it leaves nothing running.

    `services` are those of several runs, one after the other, which whoever made them closes.
    """
    quiet_environment()
    with closing(Progress(views)) as progress, Session.open(request, progress, services) as session:
        if session.begin() and request.executor == "ray":
            session.progress.doing("starts workers")
            session.services.begin()
            from flows.curate import under_prefect  # importing Prefect takes seconds, which the services use too

            return under_prefect(session, warn)
        return run_stages(session, session.run_stage)


def run_stages(session: Session, run_stage: Callable[[], None]) -> Result:
    """Every stage that is left, then the shards and the manifest."""
    while session.next_stage() is not None:
        run_stage()
    return session.finish()


def _rearm() -> None:
    """Ray, once connected, takes SIGTERM for itself and aborts three seconds later; it is ours to end cleanly."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _on_ray(job: Job) -> "Executor":
    """As many actors as the specification says, each with what the operators it may open declare or are given."""
    from curation.execution.needs import WorkerNeeds
    from curation.execution.on_ray import OnRay

    return OnRay(WorkerNeeds.of(job.plan, job.spec.execution))


@contextlib.contextmanager
def _told_if_long(progress: Progress, activity: str) -> Iterator[None]:
    """Say what is waited for when it takes longer than a moment."""
    timer = threading.Timer(_MOMENT_S, progress.doing, [activity])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _unhurried(kind: type[BaseException] | None) -> Any:
    """While an interrupted run stops its workers, a second Ctrl-C does not leave them behind."""
    interrupted = kind is not None and not issubclass(kind, Exception)
    if not interrupted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
