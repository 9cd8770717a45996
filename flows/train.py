"""A training as a Prefect flow: progress as it goes, and its metrics as a table.

Prefect shows and schedules; where a training stands is recorded in its own folder alone. `pairmill train` uses it where
a server was configured, or started by `pairmill up`. A deployment's entrypoint is `flows/train.py:train_flow`.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.curate import PREFECT_TROUBLE, first_line, slug, told_to_the_end
from schemas.any_training import read_training
from training.run_folder import TrainResult
from training.train import Progress, Tell, train

Work = Callable[[Progress, Tell], TrainResult]
_ARTIFACT_EVERY_S = 5.0
_work: ContextVar[Work | None] = ContextVar("work", default=None)


@flow(name="train", flow_run_name="train {spec}", validate_parameters=False, persist_result=False)
def train_flow(spec: str, overrides: Sequence[str] = (), folder: str | None = None) -> str:
    """Train as a specification says and return the folder of the model; `folder` is where its paths begin."""
    with contextlib.chdir(folder or "."):
        artifacts = _Artifacts(spec)
        if (handed_over := _work.get()) is not None:
            result = handed_over(artifacts.step, artifacts.tell)
        else:
            result = train(read_training(spec, overrides), progress=artifacts.step, tell=artifacts.tell)
        artifacts.metrics(result)
        return str(result.model_folder.absolute())


def train_under_prefect(
    url: str,
    spec: str,
    overrides: Sequence[str],
    work: Work,
    warn: Callable[[str], None],
) -> TrainResult:
    """Do the work as a flow run; without Prefect where that fails on the way."""
    results: list[TrainResult] = []
    errors: list[BaseException] = []

    def noted(progress: Progress, tell: Tell) -> TrainResult:
        try:
            results.append(work(progress, tell))
        except BaseException as error:
            errors.append(error)
            raise
        return results[-1]

    token = _work.set(noted)
    try:
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 1}), told_to_the_end():
            train_flow(spec, list(overrides))
    except PREFECT_TROUBLE as error:
        if errors:
            raise errors[-1] from None
        warn(f"Prefect failed ({type(error).__name__}: {first_line(error)}); the training goes on without it")
    finally:
        _work.reset(token)
    return results[-1] if results else work(lambda *_: None, lambda _: None)


class _Artifacts:
    """What Prefect shows of a training; it falls silent for good after a first failure."""

    def __init__(self, spec: str) -> None:
        self._name = slug(spec.rsplit("/", 1)[-1].split(".")[0])
        self._doing = ""
        self._id: UUID | None = None
        self._last = 0.0
        self._silent = False

    def tell(self, sentence: str) -> None:
        """Show what goes on beside its progress from now on."""
        self._doing, self._last = f"{sentence}; ", 0.0

    def step(self, step: int, steps: int, loss: float, samples_per_s: float) -> None:
        """Update the progress, at most every few seconds."""
        if step < steps and time.monotonic() - self._last < _ARTIFACT_EVERY_S:
            return
        self._last = time.monotonic()
        percent, about = 100.0 * step / steps, f"{self._doing}loss {loss:.3f}, {samples_per_s:,.0f} samples/s"
        found = self._id
        if found is None:
            made = self._tell(lambda: create_progress_artifact(percent, key=f"train-{self._name}", description=about))
            self._id = made if isinstance(made, UUID) else None
        else:
            self._tell(lambda: update_progress_artifact(found, percent, description=about))

    def metrics(self, result: TrainResult) -> None:
        """Show the metrics as a table."""
        rows = [{"metric": name, "value": str(value)} for name, value in _flat(result.metrics)]
        about = f"the model lies in {result.model_folder}"
        self._tell(lambda: create_table_artifact(rows, key=f"metrics-{self._name}", description=about))

    def _tell(self, call: Callable[[], Any]) -> Any:
        if self._silent:
            return None
        try:
            return call()
        except PREFECT_TROUBLE:
            self._silent = True
            return None


def _flat(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    """zeroshot.top1 for the top1 of zeroshot."""
    flat: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        flat += [(f"{name}.{k}", v) for k, v in value.items()] if isinstance(value, dict) else [(name, value)]
    return flat
