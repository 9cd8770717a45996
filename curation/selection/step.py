"""What a dataset step is: it looks at columns of all alive rows and decides which live on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from schemas.columns import Column

Mark = Annotated[
    str | None,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="drop nothing; add this boolean column: true where kept"),
]


@dataclass
class Decision:
    """Which of N rows live on, and why the others do not.

    `kept` is bool_N. `duplicate_of` maps a dropped row to the key of the row kept instead (None: it has no key).
    `reason` stands for every dropped row that `row_reasons` does not name. `columns` holds the N values of each column
    that the step adds.
    """

    kept: np.ndarray
    reason: str
    duplicate_of: Mapping[int, str | None] = field(default_factory=dict)
    row_reasons: Mapping[int, str] = field(default_factory=dict)
    columns: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)


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
    def adds(self) -> tuple[Column, ...]:
        """Columns that `decide` gives every row, beside a mark. Raises InputError where that cannot be."""
        return ()

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

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = ()) -> Decision:
        """Decide over N rows with `key` and the columns of `inputs`; `against` tables have `key`, `file` and `row`."""
        raise NotImplementedError
