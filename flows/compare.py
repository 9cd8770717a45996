"""A comparison of data sets as a Prefect flow: a task for each set to materialise, a task for each training.

    from flows.compare import compare
    record = compare(["a.yaml", "b.yaml"], "t.yaml", seeds=5)  # the path of comparison.json

Prefect shows and schedules; what is done is recorded in the store and in the run folders alone. `pairmill compare` uses
it where a server was configured, or started by `pairmill up`. A deployment's entrypoint is
`flows/compare.py:compare_flow`.
"""

import contextlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.compared_sets import SetsAsked
from flows.curate import PREFECT_TROUBLE, executor_named, first_line, slug, told_to_the_end
from flows.one_comparison import ComparisonAsked, Teller, run_comparison
from training.compare import Do
from training.comparison.compared import RECORD, Comparison

Work = Callable[[Do], Comparison]
_work: ContextVar[Work | None] = ContextVar("work", default=None)
_piece: ContextVar[Callable[[], None] | None] = ContextVar("piece", default=None)


def compare(
    sets: Sequence[str],
    train: str,
    *,
    seeds: int = 5,
    store: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    metrics: Sequence[str] = (),
    output: str | None = None,
    executor: str = "ray",
    ray_address: str | None = None,
) -> str:
    """Compare sets by what they teach, and return the path of comparison.json. Raises PairmillError."""
    asked = ComparisonAsked(
        SetsAsked(tuple(sets), store, limit, executor_named(executor), ray_address), train, seeds, tuple(overrides),
        tuple(metrics), output,
    )  # fmt: skip
    return str(run_comparison(asked, Teller()).folder / RECORD)


@flow(name="compare", flow_run_name="compare by {train}", validate_parameters=False, persist_result=False)
def compare_flow(
    sets: Sequence[str],
    train: str,
    seeds: int = 5,
    store: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    metrics: Sequence[str] = (),
    output: str | None = None,
    ray_address: str | None = None,
    folder: str | None = None,
) -> str:
    """Compare sets under Prefect and return the path of comparison.json; `folder` is where paths begin."""
    with contextlib.chdir(folder or "."):
        if (handed_over := _work.get()) is not None:
            comparison = handed_over(_as_task)
        else:
            of_sets = SetsAsked(tuple(sets), store, limit, ray_address=ray_address)
            asked = ComparisonAsked(of_sets, train, seeds, tuple(overrides), tuple(metrics), output)
            comparison = run_comparison(asked, Teller(), _as_task)
        with contextlib.suppress(*PREFECT_TROUBLE):
            create_markdown_artifact(comparison.markdown(), key=f"comparison-{slug(comparison.training)}")
        return str((comparison.folder / RECORD).absolute())


def compare_under_prefect(url: str, asked: ComparisonAsked, work: Work, warn: Callable[[str], None]) -> Comparison:
    """Do the work as a flow run; without Prefect where that fails on the way."""
    results: list[Comparison] = []
    errors: list[BaseException] = []

    def noted(do: Do) -> Comparison:
        results.append(work(lambda label, piece: do(label, partial(_noting, errors, piece))))
        return results[-1]

    token = _work.set(noted)
    try:
        with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 1}), told_to_the_end():
            of_sets = asked.sets
            compare_flow(
                of_sets.sets, asked.training, asked.seeds, of_sets.store, of_sets.limit, asked.overrides,
                asked.metrics, asked.output, of_sets.ray_address,
            )  # fmt: skip
    except PREFECT_TROUBLE as error:
        if errors:
            raise errors[-1] from None
        if not results:
            warn(f"Prefect failed ({type(error).__name__}: {first_line(error)}); the comparison goes on without it")
    finally:
        _work.reset(token)
    return results[-1] if results else work(lambda _, piece: piece())


def _noting(errors: list[BaseException], piece: Callable[[], None]) -> None:
    """Do a piece, and remember what it raised itself, to tell it from what Prefect raises."""
    try:
        piece()
    except BaseException as error:
        errors.append(error)
        raise


@task(name="piece", task_run_name="{label}", cache_policy=NO_CACHE, persist_result=False)
def _task(label: str) -> None:
    piece = _piece.get()
    assert piece is not None, "a piece is done inside compare_flow only"
    piece()


def _as_task(label: str, piece: Callable[[], None]) -> None:
    """One piece of a comparison as a task of Prefect."""
    token = _piece.set(piece)
    try:
        _task(label)
    finally:
        _piece.reset(token)
