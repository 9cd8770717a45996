"""`top`: the rows with the highest (or lowest) values, an exact number of them."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from curation.selection.decimals import as_written
from curation.selection.ordering import group_numbers, identifier, positions_in_order
from curation.selection.quantile import ordered_bits, thresholds
from curation.selection.step import ALONE, DatasetStep, Decision, Desk, Mark
from schemas.columns import KEY
from schemas.errors import InputError

VALUE, GROUP = "by_0", "per_0"
_BLOCK_ROWS = 1 << 20


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
        """Keep the first rows of each group in order of (value, key); only rows near the threshold are sorted."""
        group_N = group_numbers(rows, GROUP) if self.per else np.broadcast_to(np.int64(0), rows.num_rows)
        groups = int(group_N.max(initial=-1)) + 1
        cut = thresholds(
            lambda: (block[1:] for block in self._blocks(rows, group_N)), groups, lambda n: max(self._quota(n), 1)
        )
        kept_N, has_value_N, is_near_N = (np.zeros(rows.num_rows, np.bool_) for _ in range(3))
        for row_V, bits_V, group_V in self._blocks(rows, group_N):
            has_value_N[row_V] = True
            kept_N[row_V] = bits_V >> cut.shift > cut.bits_G[group_V]
            is_near_N[row_V] = bits_V >> cut.shift == cut.bits_G[group_V]
        if not has_value_N.any():
            return Decision(kept_N, self._no_value)
        order_T = self._in_order(rows, is_near_N, group_N)  # T: rows near a threshold
        starts_G = np.searchsorted(group_N[order_T], np.arange(groups))
        quota_G = np.array([self._quota(size) for size in cut.size_G.tolist()], np.int64)
        place_T = np.arange(len(order_T)) - starts_G[group_N[order_T]]
        kept_N[order_T[place_T < np.minimum(cut.left_G, quota_G)[group_N[order_T]]]] = True
        sizes = zip(cut.size_G.tolist(), quota_G.tolist(), (starts_G + cut.left_G - 1).tolist(), strict=True)
        reasons = [self._reason(rows, order_T[last], size, quota) if size else "" for size, quota, last in sizes]
        return self._decision(kept_N, has_value_N, group_N, reasons)

    def _blocks(self, rows: pa.Table, group_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of the rows that have a value: row numbers, bits that grow with their rank, groups; in blocks."""
        for start in range(0, rows.num_rows, _BLOCK_ROWS):
            bits_V, has_value_B = ordered_bits(rows[VALUE].slice(start, _BLOCK_ROWS))
            row_V = start + np.flatnonzero(has_value_B)
            yield row_V, bits_V if self.order == "desc" else ~bits_V, group_N[row_V]

    def _in_order(self, rows: pa.Table, is_near_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
        """The rows near a threshold by group, then value and key."""
        few = rows.select([KEY.name, VALUE]).filter(pa.array(is_near_N))  # `take` would copy all keys
        order_T = np.flatnonzero(is_near_N)[positions_in_order(few, [(VALUE, self.order == "desc")])]
        return order_T[np.argsort(group_N[order_T], kind="stable")]

    def _decision(
        self, kept_N: np.ndarray, has_value_N: np.ndarray, group_N: np.ndarray, groups: list[str]
    ) -> Decision:
        """The decision, with each group's reason, and one for the rows without a value."""
        row_reasons = dict.fromkeys(np.flatnonzero(~has_value_N).tolist(), self._no_value)
        if self.per is None:
            return Decision(kept_N, groups[0], row_reasons=row_reasons)
        below = np.flatnonzero(has_value_N & ~kept_N)
        row_reasons |= zip(below.tolist(), (groups[g] for g in group_N[below].tolist()), strict=True)
        return Decision(kept_N, f"{self.by} ranks {self._side} per {self.per}", row_reasons=row_reasons)

    @property
    def _no_value(self) -> str:
        return f"{self.by} is NULL or NaN, so the row has no rank"

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

    def _reason(self, rows: pa.Table, last: int, size: int, quota: int) -> str:
        """Why rows of a group rank too low; `last` is its last kept row, or any if none is kept."""
        group = f" where {self.per} is {_group_text(rows[GROUP][last])}" if self.per else ""
        threshold = _text(rows[VALUE][last]) if quota else "none"
        return f"{self.by} ranks {self._side} of {size:,} rows{group} (threshold {threshold}; ties by key)"


def _text(value: pa.Scalar) -> str:
    """A value in as few digits as name it in its own precision."""
    return str(np.float32(value.as_py())) if pa.types.is_float32(value.type) else str(value.as_py())


def _group_text(value: pa.Scalar) -> str:
    return repr(value.as_py()) if value.is_valid else "NULL"
