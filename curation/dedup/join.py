"""What every similarity join gives: pairs of distinct values, found by jobs that do not depend on each other.

U, V: distinct values; P: pairs. A join over a pool is cut into jobs, each a share of the work that needs nothing of
the others: threads run them on one machine, tasks on Ray; which job finds a pair is fixed, so each pair comes once.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

Values = tuple[np.ndarray, ...]  # what all jobs of a join read: large, shared, never changed
PairBlock = tuple[np.ndarray, np.ndarray, np.ndarray]  # left_P and right_P (int64 positions), measure_P


class Job(Protocol):
    """An independent share of a join: small, and picklable."""

    @property
    def work(self) -> float:
        """How long it may take, in seconds; only the order of jobs hangs on it."""

    def pairs(self, values: Values) -> Iterator[PairBlock]:
        """Its pairs, in blocks of bounded size, in an order that is always the same."""


FindPairs = Callable[[Sequence[Job], Values], Iterator[PairBlock]]


def pairs_of(jobs: Sequence[Job], values: Values, threads: int = 1) -> Iterator[PairBlock]:
    """The pairs of all jobs in the jobs' order, `threads` jobs at once."""
    if threads <= 1:
        for job in jobs:
            yield from job.pairs(values)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="join") as pool:
        waiting: deque[Future[list[PairBlock]]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(lambda job: list(job.pairs(values)), job))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
