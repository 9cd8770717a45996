"""`join`: columns from a Parquet table outside of the pool, or only the rows that a published list names.

A dataset step, not a row operator: it may drop rows, which no operator does, and it reads the table once for the whole
pool, where an operator would for every part. The table is pinned by digest when the plan is made.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from curation.selection.comparable import family
from curation.selection.ordering import identifier
from curation.selection.outside_table import ROW, partners, types_in
from curation.selection.step import ALONE, DatasetStep, Decision, Desk
from schemas.columns import KEY, Column
from schemas.errors import InputError, RunError

VALUE = "on_0"


class Join(DatasetStep):
    """Brings columns from a Parquet table outside, matched by a column; or keeps only the rows that it names."""

    table: str | tuple[str, ...] = Field(description="Parquet files, globs too")
    on: str = Field(min_length=1, description="column of both; no two rows of the table may match one row of the pool")
    columns: Mapping[str, str] = Field(
        default={}, description="columns to bring, a list or `{ours: theirs}`; NULL for rows without a partner"
    )
    keep_only: bool = Field(default=False, description="drop the rows without a partner in the table")

    @field_validator("columns", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.columns and not self.keep_only:
            raise ValueError("join needs 'columns' to bring, or 'keep_only: true', or both")
        return self

    @property
    def against(self) -> tuple[str, ...]:
        """The files to pin."""
        return (self.table,) if isinstance(self.table, str) else self.table

    def pinned_to(self, paths: Sequence[str]) -> Self:
        """The step over exactly these files."""
        return self.model_copy(update={"table": tuple(paths)})

    @property
    def inputs(self) -> dict[str, str]:
        """The pool's side of the match."""
        return {VALUE: identifier(self.on)}

    @property
    def adds(self) -> tuple[Column, ...]:
        """The columns that are brought, in the types that the table has. Raises InputError where it lacks one."""
        types = types_in(self.against, list(self.columns.values()))
        return tuple(Column(ours, types[theirs], f"joined by {self.on}") for ours, theirs in self.columns.items())

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse a table whose column to match by is not there, or does not compare with the pool's."""
        theirs = types_in(self.against, [self.on])[self.on]
        if family(types[VALUE]) != family(theirs):
            raise InputError(
                f"on: column {self.on!r} is of type {types[VALUE]} in the pool and of type {theirs} in the table; "
                "bring both to one type, in the table or with `derive`"
            )

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Match N rows with their partners. Raises RunError where one has several."""
        matched = partners(rows[VALUE], self.against, self.on, self.columns)
        row_P = matched[ROW].to_numpy()
        times_N = np.bincount(row_P, minlength=rows.num_rows)
        if times_N.max(initial=0) > 1:
            first = rows.filter(pa.array(times_N > 1)).sort_by(KEY.name)[VALUE][0].as_py()
            raise RunError(f"the table has several rows with {self.on} {first!r}; leave one of them there")
        place_N = np.full(rows.num_rows, -1, np.int64)
        place_N[row_P] = np.arange(len(row_P))
        there = pa.array(place_N, mask=place_N < 0)
        brought = {column.name: matched[column.name].take(there).cast(column.type) for column in self.adds}
        kept_N = place_N >= 0 if self.keep_only else np.ones(rows.num_rows, np.bool_)
        return Decision(kept_N, f"no row of the table has its {self.on}", columns=brought)
