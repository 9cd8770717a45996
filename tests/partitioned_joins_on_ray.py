"""The driver of drivers_on_ray.py, for which every pool outgrows memory; workers may be killed during its joins.

    python partitioned_joins_on_ray.py RAY_ADDRESS FOLDER

The first job of each kind in MORTAL kills its worker when it has done its work and not yet said so: it is done twice.
The folder then has a file for each of them.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import drivers_on_ray

from curation.dedup.embeddings import vectors_by_cell
from curation.execution import joins
from curation.selection import inputs
from curation.selection.likeness import hamming, partitions

MORTAL = ("CollapseRange", "Move", "GroupJob", "WordsJob")
find = joins._find


def main() -> None:
    """Answer until nobody asks."""
    inputs.GATHERED_BYTES = hamming.SHARED_BYTES = 0
    partitions.PARTITION_BYTES, partitions.SHARE_BYTES = 6_000, 4_000
    vectors_by_cell.MOST_IN_ONE_CELL = 100
    joins._find = deadly(Path(sys.argv[2]), MORTAL)
    drivers_on_ray.main()


def deadly(folder: Path, mortal: tuple[str, ...]) -> Any:
    """What workers do instead: the same, but the first of a kind dies of it. Sent by value: workers lack this file."""

    def find_and_die(task: Any, **where: Any) -> Any:
        found = find(task, **where)
        job = task[0]
        while kind := getattr(job, "errand", None) or getattr(job, "job", None):
            job = kind
        mark = folder / type(job).__name__
        if mark.name not in mortal or mark.exists():
            return found
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    return find_and_die


if __name__ == "__main__":
    main()
