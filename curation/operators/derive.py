"""`derive: {<column>: <SQL>, …}`: columns by a row's own SQL."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict, PrivateAttr, field_validator, model_validator

from curation import sql
from curation.operator import Batch, Operator, Output, Resources
from schemas.columns import Column
from schemas.errors import InputError, RunError


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
        if not isinstance(value, Mapping) or (set(value) == {"columns"} and isinstance(value["columns"], Mapping)):
            return value
        return {"columns": value}

    @field_validator("columns", mode="before")
    @classmethod
    def _sql_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not value:
            raise ValueError("name at least one column, as in `derive: {aspect: width_px / height_px}`")
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
                raise ValueError(f"{name!r} is no name of a column (in {{…}}, quote SQL that has a comma)")
        # `derive: {weight: 1}`: YAML makes a number or a boolean of what is SQL too.
        return {name: str(text) if isinstance(text, (bool, int, float)) else text for name, text in value.items()}

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """As it is written in YAML."""
        sql_text = {"type": ["string", "number", "boolean"], "description": "SQL over the row's columns"}
        return {"type": "object", "additionalProperties": sql_text, "minProperties": 1}

    def bound(self, types: Mapping[str, pa.DataType]) -> "Derive":
        """The operator over columns of these types: its own columns get the types that DuckDB binds."""
        for name, text in self.columns.items():
            _checked(name, sql.bind({name: text}, types)[name])
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
        """The expressions' values. A row on which one cannot be computed fails alone."""
        try:
            table = sql.evaluate(self.columns, batch.table)
        except RunError as error:
            raise ValueError(str(error)) from error
        return Output({name: table[name] for name in self.columns})


def _checked(name: str, kind: pa.DataType) -> None:
    """Refuse a type that no sidecar can hold."""
    for leaf in _leaves(kind):
        tests = (pa.types.is_null, pa.types.is_interval, pa.types.is_dictionary, pa.types.is_union)
        if any(test(leaf) for test in tests) or isinstance(leaf, pa.BaseExtensionType):
            raise InputError(f"{name} is of type {kind}, which cannot be stored; cast it, as in `(…)::VARCHAR`")


def _leaves(kind: pa.DataType) -> list[pa.DataType]:
    if not pa.types.is_nested(kind) or pa.types.is_union(kind):
        return [kind]
    return [leaf for place in range(kind.num_fields) for leaf in _leaves(kind.field(place).type)]
