"""Purges stores in forked children, each killed at its n-th durable step (0: never); prints the steps of the others.

python killed_purges.py STORE=POINT...
"""

import os
import sys

from killed_runs import _count_down

from curation.forget import proof, purge  # noqa: F401  # imported once, before any child is forked
from curation.forget.forget import forget


def main() -> None:
    """Purge what the arguments say."""
    for argument in sys.argv[1:]:
        store, _, point = argument.rpartition("=")
        if os.fork() == 0:
            left = _count_down(int(point))
            forget(store, None, purge=True)
            print(int(point) - left[0], flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
