"""An operator that may raise: the row that does it fails, and no other."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from curation.operator import Batch, Failure, Operator, Output
from schemas.columns import Column
from schemas.errors import PairmillError, PartError


def _as_it_is(_: int, output: Output) -> Any:
    return output


class Guarded:
    """An operator whose `run` may raise: a batch that raises is run row by row, and the row that raises alone fails.

    `fitted` makes of the output for a number of rows what is wanted of it; an output that does not fit raises there.
    `where` begins the sentences about what fails the part; `adds` are the columns where the plan knows them only.
    """

    def __init__(
        self,
        operator: Operator,
        fitted: Callable[[int, Output], Any] = _as_it_is,
        where: str = "operator",
        adds: Sequence[Column] | None = None,
    ) -> None:
        self._operator = operator
        self._adds = operator.adds if adds is None else adds
        self._fitted = fitted
        self._where = where

    def stream(self, batches: Iterator[tuple[np.ndarray, Batch]], opened: Any) -> Iterator[tuple[np.ndarray, Any]]:
        """(rows_N, what `fitted` makes of their output) from the operator's own stream if it has one, else from `run`.

        Raises PartError where something else than a row is wrong.
        """
        if type(self._operator).stream is Operator.stream:
            for rows, batch in batches:
                yield from self._run(rows, batch, opened)
            return
        try:
            for rows, output in self._operator.stream(batches, opened):
                yield rows, self._fitted(len(rows), output)
        except PairmillError:
            raise
        except Exception as error:
            raise PartError(f"{self._where}: {type(error).__name__}: {error}") from error

    def _run(self, rows: np.ndarray, batch: Batch, opened: Any) -> Iterator[tuple[np.ndarray, Any]]:
        try:
            fitted = self._fitted(len(rows), self._operator.run(batch, opened))
        except PairmillError as error:
            raise PartError(f"{self._where}: {error}") from error
        except Exception as error:
            if len(rows) > 1:
                logging.getLogger(__name__).debug("batch of %d rows raised, now row by row", len(rows), exc_info=True)
                for i in range(len(rows)):
                    one = Batch(batch.table.slice(i, 1), [batch.stored[i]])
                    yield from self._run(rows[i : i + 1], one, opened)
                return
            empty = {column.name: [None] for column in self._adds}
            fitted = self._fitted(1, Output(empty, {0: Failure("error", f"{type(error).__name__}: {error}")}))
        yield rows, fitted
