"""`top`: the rows with the highest (or lowest) values, an exact number of them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from curation.selection.decimals import as_written
from curation.selection.ordering import group_numbers, identifier, positions_in_order
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark
from schemas.errors import InputError

VALUE, GROUP = "by_0", "per_0"


class Top(DatasetStep):
    """Keeps the rows with the highest (or lowest) values: an exact fraction or number, per group if asked."""

    by: str = Field(min_length=1, description="column or SQL over a row's columns; NULL and NaN are never kept")
    fraction: Annotated[Decimal, BeforeValidator(as_written)] | None = Field(
        default=None, gt=0, le=1, description="keep exactly floor(fraction · N) of the N rows that have a value"
    )
    rows: int | None = Field(default=None, ge=1, description="keep this many rows")
    per: str | None = Field(default=None, min_length=1, description="column: decide within each of its values")
    order: Literal["desc", "asc"] = Field(default="desc", description="desc keeps the highest values, asc the lowest")
    mark: Mark = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("top needs either 'fraction' (such as 0.3) or 'rows' (such as 1000)")
        return self

    @property
    def inputs(self) -> dict[str, str]:
        """The value to rank by, and the group."""
        return {VALUE: self.by} | ({GROUP: identifier(self.per)} if self.per else {})

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse values that have no size."""
        found = types[VALUE]
        sized = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal)
        if not any(is_sized(found) for is_sized in sized):
            raise InputError(f"by: {self.by!r} is of type {found}; top ranks numbers, dates and times")

    def decide(self, rows: pa.Table, against: Sequence[pa.Table] = (), desk: Desk = ALONE) -> Decision:
        """Keep the first rows of each group in order of (value, key)."""
        has_value_N = ~pc.is_null(rows[VALUE], nan_is_null=True).to_numpy()
        order_N = positions_in_order(rows, [(VALUE, self.order == "desc")])
        order_M = order_N[has_value_N[order_N]]  # M: the rows that have a value
        group_N = group_numbers(rows, GROUP) if self.per else np.zeros(rows.num_rows, np.int64)
        order_M = order_M[np.argsort(group_N[order_M], kind="stable")]
        sizes_G = np.bincount(group_N[order_M])
        starts_G = np.cumsum(sizes_G) - sizes_G
        quota_G = np.array([self._quota(int(size)) for size in sizes_G], np.int64)
        place_M = np.arange(len(order_M)) - np.repeat(starts_G, sizes_G)
        is_kept_M = place_M < np.repeat(quota_G, sizes_G)
        kept_N = np.zeros(rows.num_rows, np.bool_)
        kept_N[order_M[is_kept_M]] = True
        groups = [
            self._reason(rows, order_M[start : start + size], quota)
            for start, size, quota in zip(starts_G.tolist(), sizes_G.tolist(), quota_G.tolist(), strict=True)
        ]
        return self._decision(kept_N, has_value_N, group_N, groups)

    def _decision(
        self, kept_N: np.ndarray, has_value_N: np.ndarray, group_N: np.ndarray, groups: list[str]
    ) -> Decision:
        """The decision, with each group's reason, and one for the rows without a value."""
        no_value = f"{self.by} is NULL or NaN, so the row has no rank"
        if not groups:
            return Decision(kept_N, no_value)
        row_reasons = dict.fromkeys(np.flatnonzero(~has_value_N).tolist(), no_value)
        if self.per is None:
            return Decision(kept_N, groups[0], row_reasons=row_reasons)
        below = np.flatnonzero(has_value_N & ~kept_N)
        row_reasons |= zip(below.tolist(), (groups[g] for g in group_N[below].tolist()), strict=True)
        return Decision(kept_N, f"{self.by} ranks {self._side} per {self.per}", row_reasons=row_reasons)

    def _quota(self, size: int) -> int:
        """How many of a group of `size` rows are kept."""
        if self.fraction is None:
            assert self.rows is not None
            return min(self.rows, size)
        return int(Fraction(self.fraction) * size)

    @property
    def _side(self) -> str:
        """Where the dropped rows lie: `below the best 30 %`."""
        amount = f"{self.rows:,}" if self.fraction is None else f"{(self.fraction * 100).normalize():f} %"
        return f"{'below the best' if self.order == 'desc' else 'above the lowest'} {amount}"

    def _reason(self, rows: pa.Table, order_G: np.ndarray, quota: int) -> str:
        """Why rows of a group rank too low; `order_G` are the group's rows that have a value, best first."""
        if not len(order_G):
            return ""
        group = f" where {self.per} is {_group_text(rows[GROUP][int(order_G[0])])}" if self.per else ""
        threshold = _text(rows[VALUE][int(order_G[quota - 1])]) if quota else "none"
        return f"{self.by} ranks {self._side} of {len(order_G):,} rows{group} (threshold {threshold}; ties by key)"


def _text(value: pa.Scalar) -> str:
    """A value in as few digits as name it in its own precision."""
    return str(np.float32(value.as_py())) if pa.types.is_float32(value.type) else str(value.as_py())


def _group_text(value: pa.Scalar) -> str:
    return repr(value.as_py()) if value.is_valid else "NULL"
