"""What a row operator is: frozen parameters, typed reads and adds, a version, resources, `open` and `run`.

A row operator adds columns to the rows of one part; it drops nothing and changes no column. Its class stands alone in
a file of `curation/operators/` (or of a user's own folder), and the file's name is its name in a specification.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from curation.storage.store import Store
from schemas.columns import Column
from schemas.pixels import DecodeError, decode

OK = "ok"


def setting(default: Any, description: str, **constraints: Any) -> Any:
    """A parameter that says *how* an operator works and never changes a value: it is no part of the fingerprint."""
    return Field(default, description=description, json_schema_extra={"affects_result": False}, **constraints)


@dataclass(frozen=True)
class Resources:
    """What one worker of an operator needs. Declared, never probed on the driver."""

    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 1
    actor: bool = False  # `open` is dear (a model): kept alive between parts


@dataclass(frozen=True)
class Failure:
    """Why one row has no value: `status` is a short class of failure, `error` a sentence."""

    status: str
    error: str


@dataclass(frozen=True)
class Workplace:
    """What a worker offers to the operators that it opens: the run's store, and what all workers of the run share."""

    store: Store | None = None
    hosts: Callable[..., Any] | None = None  # how the run's host policy is asked; None: this worker is the only one


@dataclass
class Batch:
    """Some rows of one part: the columns an operator reads, and the stored pictures.

    `table` holds keys and columns as they are read back from storage. `stored` holds the stored bytes of each row's
    picture, or None for every row when the operator does not read `image`. Decoded pixels are shared by all operators
    of a task, under the identity of the bytes that they were decoded from.
    """

    table: pa.Table
    stored: Sequence[bytes | None] = ()
    _pixels: dict[int, "np.ndarray | Failure"] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.table[name]

    def vectors(self, name: str) -> np.ndarray:
        """An embedding column as float32 `vectors_ND`; the column must hold no NULL."""
        column = self.table[name].combine_chunks()
        width = column.type.byte_width // 2
        halves_ND = np.frombuffer(column.buffers()[1], np.float16).reshape(-1, width)
        return halves_ND[column.offset : column.offset + len(column)].astype(np.float32)

    def pixels(self, row: int) -> "np.ndarray | Failure":
        """The picture of a row as uint8 `pixels_HWC` (RGB), decoded once for all operators of a task."""
        stored = self.stored[row]
        assert stored is not None, "the row has no stored picture"
        if id(stored) not in self._pixels:
            try:
                self._pixels[id(stored)] = decode(stored)
            except DecodeError as error:
                self._pixels[id(stored)] = Failure("decode_error", str(error))
        return self._pixels[id(stored)]


@dataclass
class Output:
    """What `run` returns for a batch of N rows.

    `values` maps each added column to N values (None where the row failed). `failures` maps the rows that failed to
    why. `stored` is only for operators that bring pictures: the bytes to keep for each row; `originals` are those that
    it came from, where they are to be kept too.
    `ledger` is only for operators that fetch: one row per attempt that the `downloads` view shows.
    """

    values: Mapping[str, Sequence[Any] | np.ndarray | pa.Array]
    failures: Mapping[int, Failure] = field(default_factory=dict)
    stored: Sequence[bytes | None] | None = None
    originals: Sequence[bytes | None] = ()
    ledger: Sequence[dict[str, Any]] = ()


class Operator(BaseModel):
    """Base of all row operators. The first line of a subclass's docstring is its line in `pairmill operators`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources()
    captured: ClassVar[bool] = False  # the first committed value stands; else two computations must agree
    asks_hosts: ClassVar[bool] = False  # whether it fetches from hosts whose limits hold for all workers of a run
    passing: ClassVar[frozenset[str]] = frozenset()  # statuses of failures that may pass: `--retry-failed` tries again
    batch_rows: ClassVar[int] = 256
    can_fail: ClassVar[bool] = True  # whether rows may fail: if so, its status and error are columns of the plan

    @property
    def reads(self) -> tuple[Column, ...]:
        """The columns that `run` looks at."""
        raise NotImplementedError

    @property
    def adds(self) -> tuple[Column, ...]:
        """The columns that `run` adds."""
        raise NotImplementedError

    @property
    def judges_by(self) -> tuple[str, ...]:
        """Which of the columns in `reads` only `refusals` looks at: they are no part of the fingerprint."""
        return ()

    def refusals(self, recorded: pa.Table, beside: pa.Table) -> Mapping[int, Failure]:
        """Rows that this plan refuses though they may have a value; asked where `judges_by` names a column.

        A policy is applied to what is recorded, so that plans with another policy share it. `recorded` has the
        columns of `adds`, `beside` those of `judges_by`.
        """
        return {}

    def weights_digest(self) -> str:
        """SHA-256 of the weights that the operator loads; empty for none."""
        return ""

    def check(self) -> None:
        """Raise InputError for what can be known to be wrong before anything runs, beyond the parameters' types."""

    def open(self) -> Any:
        """What one worker needs for all its batches: a model, a connection pool. Heavy imports stand here."""
        return None

    def open_at(self, workplace: Workplace) -> Any:
        """The same, for operators that use what the worker offers."""
        return self.open()

    def run(self, batch: Batch, opened: Any) -> Output:
        """The added columns for the rows of a batch."""
        raise NotImplementedError

    def stream(self, batches: Iterator[tuple[np.ndarray, Batch]], opened: Any) -> Iterator[tuple[np.ndarray, Output]]:
        """Outputs for a stream of (rows_N, batch), in any order and any grouping; `run` over each batch by default.

        Operators that wait (downloads) override it, to keep many rows in flight at once.
        """
        for rows, batch in batches:
            yield rows, self.run(batch, opened)

    @classmethod
    def result_parameters(cls) -> list[str]:
        """Names of the parameters that affect a result, sorted."""
        extras = {name: info.json_schema_extra or {} for name, info in cls.model_fields.items()}
        return sorted(n for n, extra in extras.items() if not callable(extra) and extra.get("affects_result", True))


def example_parameters(cls: type[Operator]) -> tuple[dict[str, Any], str]:
    """The first example of each required parameter, and the name of one that has none."""
    found = {}
    for name, info in cls.model_fields.items():
        if info.is_required():
            if not info.examples:
                return {}, name
            found[name] = info.examples[0]
    return found, ""
