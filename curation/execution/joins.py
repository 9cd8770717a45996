"""Joins of all rows: in threads of this process, or, where that would take long, as tasks of the workers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from curation.dedup.join import Job, PairBlock, Values, pairs_of
from curation.execution.executor import Executor, run_each
from curation.selection.likeness.devices import processors

WORTH_WORKERS_S = 60.0  # of work; starting workers and sending them the values takes some of that


def find_pairs(
    jobs: Sequence[Job], values: Values, workers: Callable[[], Executor] | None = None
) -> Iterator[PairBlock]:
    """The pairs of all jobs. Which worker finds them, and in which order they come, changes no decision."""
    if workers is not None and sum(job.work for job in jobs) > WORTH_WORKERS_S:
        executor = workers()
        if executor.spreads:
            yield from _on(executor, jobs, values)
            return
    yield from pairs_of(jobs, values, processors())


def _on(executor: Executor, jobs: Sequence[Job], values: Values) -> Iterator[PairBlock]:
    """The largest jobs first, so that none is left over at the end."""
    shared = executor.share(values)
    ordered = sorted(enumerate(jobs), key=lambda numbered: -numbered[1].work)
    tasks = ((f"join, job {number}", (job, shared)) for number, job in ordered)
    for _, blocks in run_each(executor, _find, tasks):
        yield from blocks


def _find(task: tuple[Job, Callable[[], Values]], **_: Any) -> list[PairBlock]:
    job, shared = task
    return list(job.pairs(shared()))
