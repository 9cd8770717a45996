"""What a dataset step is: it looks at columns of all alive rows and decides which live on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from curation.dedup.join import FindPairs, pairs_of
from curation.storage.store import Store
from schemas.columns import Column

Mark = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="drop nothing; add this boolean column: true where kept"),
]


@dataclass
class Decision:
    """Which of N rows live on, and why the others do not.

    `kept` is bool_N. `duplicate_of` maps a dropped row to the key of the row kept instead (None: it has no key).
    `reason` stands for every dropped row that `row_reasons` does not name. `columns` are those that the step adds.
    `facts` are what the manifest tells of the decision; those under `warnings` are said at once, too.
    """

    kept: np.ndarray
    reason: str
    duplicate_of: Mapping[int, str | None] = field(default_factory=dict)
    row_reasons: Mapping[int, str] = field(default_factory=dict)
    columns: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Desk:
    """What a run offers to a step that compares rows: the store that keeps what was found, and who looks for it."""

    store: Store | None = None
    find: FindPairs = pairs_of

    @property
    def spill(self) -> Path | None:
        """A folder for what memory does not hold."""
        return None if self.store is None else self.store.path("tmp")


ALONE = Desk()


class DatasetStep(BaseModel):
    """Base of all dataset steps. The first line of a subclass's docstring is its line in `pairmill operators`.

    A barrier needs all rows: the run evaluates `inputs` on the alive rows of every part, concatenates them (with
    `key`, sorted by nothing in particular) and calls `decide` once. A result never depends on the rows' order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    barrier: ClassVar[bool] = True
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> dict[str, str]:
        """SQL expressions over a row's columns, by the name under which `decide` sees them."""
        raise NotImplementedError

    @property
    def stored_inputs(self) -> dict[str, str]:
        """Embedding columns, by the name under which `decide` sees them as they are stored: binary, float16."""
        return {}

    @property
    def adds(self) -> tuple[Column, ...]:
        """Columns that the step adds to the rows, beside what `mark` names."""
        return ()

    def bound(self, columns: Mapping[str, Column]) -> Self:
        """The step as it is over these columns: what it takes from them unless it is told."""
        return self

    @property
    def against_columns(self) -> dict[str, str]:
        """Columns that each table of `against` must have, by the name under which `decide` sees them."""
        return {}

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Raise InputError where an input's type does not fit; `types` are those that DuckDB binds for `inputs`."""

    def pinned_to(self, paths: Sequence[str]) -> Self:
        """The step over exactly these files of `against`, for steps that read them by themselves."""
        return self

    def check_against(self, theirs: pa.Table, types: Mapping[str, pa.DataType]) -> None:
        """Raise InputError where a table of `against` does not compare with inputs of these types."""

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Decide over N rows with `key` and the columns of `inputs`; `against` tables have `key`, `file` and `row`."""
        raise NotImplementedError
