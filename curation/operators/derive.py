"""`derive: {<column>: <SQL>, …}`: columns by a row's own SQL."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict, PrivateAttr, model_validator

from curation import sql
from curation.operator import Batch, Operator, Output, Resources
from schemas.columns import Column


class Derive(Operator):
    """New columns by SQL over the row's own columns: `derive: {aspect: width_px / height_px}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)
    can_fail: ClassVar[bool] = False

    columns: Mapping[str, str]
    _reads: tuple[Column, ...] = PrivateAttr(())
    _adds: tuple[Column, ...] = PrivateAttr(())

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        """The parameters are the columns themselves."""
        return value if set(value) == {"columns"} and isinstance(value["columns"], Mapping) else {"columns": value}

    def bound(self, types: Mapping[str, pa.DataType]) -> "Derive":
        """The operator over columns of these types: its own columns get the types that DuckDB binds."""
        bound = self.model_copy()
        used = sorted({name for text in self.columns.values() for name in sql.used_columns(text, types)})
        found = sql.bind(self.columns, types)
        bound._reads = tuple(Column(name, types[name], "read by derive") for name in used)
        bound._adds = tuple(Column(name, kind, f"derived: {self.columns[name]}") for name, kind in found.items())
        return bound

    @property
    def reads(self) -> tuple[Column, ...]:
        """The columns that the expressions use; known once bound."""
        return self._reads

    @property
    def adds(self) -> tuple[Column, ...]:
        """The derived columns; known once bound."""
        return self._adds

    def run(self, batch: Batch, opened: Any) -> Output:
        """The expressions' values."""
        table = sql.evaluate(self.columns, batch.table)
        return Output({name: table[name] for name in self.columns})
