"""Which rows of a part kill their worker: found by halving, each half alone in a worker."""

from collections.abc import Generator

import numpy as np

from curation.execution.operator_run import OperatorRun
from curation.execution.worker import ALIVE, PartTask, settle
from curation.part_rows import PartRows
from curation.storage import layout
from schemas.errors import RunError

Hunt = Generator[np.ndarray, bool, bool]  # yields rows to run alone; is told whether their worker died


def hunt(task: PartTask) -> Hunt:
    """Find the rows that kill their worker at the part's next operator, and put a record of each into the store.

    Returns whether there are any. Raises RunError where the worker dies before any row is looked at.
    """
    rows = PartRows(task.store, task.plan, task.member, task.marks)
    settled = settle(task, rows)
    if settled.missing_step is None:
        return True
    run = OperatorRun(rows, task.plan.producer(settled.missing_step), task.neighbours)
    where = f"part {rows.name}, {run.step.label}"
    none = np.zeros(0, np.int64)
    if (yield none):
        raise RunError(f"{where}: the worker dies when the operator is opened; give it more memory, or mend it")
    guilty: list[int] = []
    for half in np.array_split(np.flatnonzero((settled.fates == ALIVE) & run.open_rows), 2):
        guilty += yield from _guilty(half)
    number = 0
    for row in guilty:
        error = f"killed the worker at {run.step.label}, in company and alone"
        record = {"row": row, "error": error, "plan": task.plan.name}
        while not task.store.put(layout.crash(rows.name, run.step.name, run.committed.fingerprint, number), record):
            number += 1
    return bool(guilty)


def _guilty(rows: np.ndarray) -> Generator[np.ndarray, bool, list[int]]:
    """The rows that kill a worker when they stand alone."""
    if len(rows) == 0 or not (yield rows):
        return []
    if len(rows) == 1:
        return [int(rows[0])]
    guilty: list[int] = []
    for half in np.array_split(rows, 2):
        guilty += yield from _guilty(half)
    return guilty
