"""The main job as a Prefect flow: one Prefect task per stage, the funnel as a table, progress as it goes.

    from flows.curate import curate
    manifest = curate("spec.yaml")

Prefect shows, schedules and repeats; what is done is recorded in the store alone. Where Prefect cannot be reached, the
same functions run without it. A deployment's entrypoint is `flows/curate.py:curate_flow`.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast, get_args
from uuid import UUID

import httpx
from prefect import flow, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from curation.job import Result
from flows.one_run import ExecutorName, Request, Session, run, run_stages
from flows.progress import Progress, Tally, as_record
from flows.wording import progress_line
from schemas.errors import InputError

PREFECT_TROUBLE = (PrefectException, httpx.HTTPError, OSError, RuntimeError, ValueError, TypeError)
_ARTIFACT_EVERY_S = 5
_LAST_WORDS_S = 5

_session: ContextVar[Session | None] = ContextVar("session", default=None)


def curate(
    spec: str,
    *,
    store: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    executor: str = "ray",
    ray_address: str | None = None,
) -> str:
    """Run a specification and return the path of its manifest. Raises PairmillError."""
    request = Request(
        str(spec), store, limit, tuple(overrides), executor=executor_named(executor), ray_address=ray_address
    )
    return str(run(request).manifest)


@flow(name="curate", flow_run_name="curate {spec}", validate_parameters=False, persist_result=False)
def curate_flow(
    spec: str,
    store: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    ray_address: str | None = None,
    folder: str | None = None,
) -> str:
    """Run a specification under Prefect and return the path of its manifest; `folder` is where its paths begin."""
    if (handed_over := _session.get()) is not None:
        return str(_stages(handed_over).manifest)
    request = Request(spec, store, limit, tuple(overrides), ray_address=ray_address)
    with (
        contextlib.chdir(folder or "."),
        contextlib.closing(Progress()) as progress,
        Session.open(request, progress) as session,
    ):
        session.services.wants_prefect = False  # this flow run has it already
        session.begin()
        token = _session.set(session)
        try:
            return str(_stages(session).manifest)
        finally:
            _session.reset(token)


def under_prefect(session: Session, warn: Callable[[str], None]) -> Result:
    """Run what is left of a session as a flow run; without Prefect if it cannot be reached or fails on the way."""
    request = session.request
    url = session.services.prefect_url()
    for warning in session.services.warnings:
        warn(warning)
    if url is None:
        return run_stages(session, session.run_stage)
    token = _session.set(session)
    try:
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 1}), told_to_the_end():
            store = str(session.job.store_path)
            curate_flow(request.spec, store, request.limit, request.overrides, request.ray_address)
    except PREFECT_TROUBLE as error:
        if session.error is not None:
            raise session.error from None
        warn(f"Prefect failed ({type(error).__name__}: {first_line(error)}); the run goes on without it")
    finally:
        _session.reset(token)
    return session.result or run_stages(session, session.run_stage)


@contextlib.contextmanager
def told_to_the_end() -> Iterator[None]:
    """Send what Prefect still has to tell before its server may stop; else it would try again for a minute."""
    before, logging.raiseExceptions = logging.raiseExceptions, False  # else what is lost is printed, line by line
    try:
        yield
        logging.raiseExceptions = before  # not after an error: where the server is gone, its threads go on complaining
    finally:
        APILogWorker.drain_all(timeout=_LAST_WORDS_S)
        EventsWorker.drain_all(timeout=_LAST_WORDS_S)


@task(name="stage", task_run_name="{label}", cache_policy=NO_CACHE, persist_result=False)
def _stage(label: str) -> None:
    _current().run_stage()


@task(name="shards", task_run_name="shards", cache_policy=NO_CACHE, persist_result=False)
def _shards() -> None:
    _current().finish()


def _stages(session: Session) -> Result:
    """The flow's body: a plain loop over stages, each a Prefect task."""
    artifacts = Artifacts()
    session.progress.views.append(artifacts)
    try:
        while (label := session.next_stage()) is not None:
            _stage(label)
        _shards()
    finally:
        session.progress.views.remove(artifacts)
    assert session.result is not None
    artifacts.funnel(session.job.spec.name, session.result)
    return session.result


def _current() -> Session:
    session = _session.get()
    assert session is not None, "a stage runs inside curate_flow only"
    return session


class Artifacts:
    """A view that keeps Prefect's progress artifact up to date; it falls silent for good after a first failure."""

    def __init__(self) -> None:
        self._last = 0.0
        self._id: UUID | None = None
        self._stage = -1
        self._silent = False

    def show(self, tally: Tally, *, now: bool) -> None:
        """Update the artifact, at most every few seconds."""
        if threading.current_thread() is not threading.main_thread() or not tally.rows:
            return  # Prefect knows the run by the thread that it runs in
        if not now and time.monotonic() - self._last < _ARTIFACT_EVERY_S:
            return
        self._last = time.monotonic()
        percent = 100.0 * tally.rows_done / tally.rows
        if tally.stage != self._stage or self._id is None:
            self._stage = tally.stage
            key = f"stage-{tally.stage + 1}"
            made = self._tell(lambda: create_progress_artifact(percent, key=key, description=_described(tally)))
            self._id = made if isinstance(made, UUID) else None
        else:
            found = self._id
            self._tell(lambda: update_progress_artifact(found, percent, description=_described(tally)))

    def funnel(self, name: str, result: Result) -> None:
        """Show the funnel as a table."""
        rows = [{key: str(value) for key, value in row.items()} for row in result.funnel]
        about = f"{result.curated:,} of {result.pool:,} rows are curated: {result.manifest}"
        self._tell(lambda: create_table_artifact(rows, key=f"funnel-{slug(name)}", description=about))

    def close(self) -> None:
        """Nothing is open."""

    def _tell(self, call: Callable[[], Any]) -> Any:
        if self._silent:
            return None
        try:
            return call()
        except PREFECT_TROUBLE:
            self._silent = True
            return None


def _described(tally: Tally) -> str:
    return progress_line(as_record(tally, time.time()))


def slug(name: str) -> str:
    """A name as Prefect wants artifact keys: lower-case letters, digits and dashes."""
    return name.lower().replace("_", "-")


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no reason given"


def executor_named(name: str) -> ExecutorName:
    """The executor of a name. Raises InputError where there is none."""
    if name not in get_args(ExecutorName):
        raise InputError(
            f"executor {name!r}: there is no such executor; there are: {', '.join(get_args(ExecutorName))}"
        )
    return cast(ExecutorName, name)
