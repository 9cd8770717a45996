"""What is known of a plan while its steps are walked: the columns so far, and who adds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import ValidationError

from curation.operator import example_parameters
from curation.registry import Registry, operator_names
from curation.stage import OperatorStep, SelectionStep, Where
from schemas import columns as c
from schemas.columns import Column
from schemas.errors import InputError
from schemas.pipeline import Resources


@dataclass
class Draft:
    """The steps that are planned, and every column that the next one may read."""

    registry: Registry
    columns: dict[str, Where]
    execution: Mapping[str, Resources]
    steps: list[OperatorStep | SelectionStep] = field(default_factory=list)
    capture: OperatorStep | None = None
    picture_step: int | None = None

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The columns that SQL may use, with their types."""
        return {name: where.column.type for name, where in self.columns.items() if name != c.IMAGE.name}

    def producer(self, index: int) -> OperatorStep:
        """The operator step of that index; -1 is the capture of the source's pictures."""
        step = self.capture if index == -1 else self.steps[index]
        assert isinstance(step, OperatorStep)
        return step

    def add(self, column: Column, where: Where, step: str = "the source") -> None:
        """Add a column. Raises InputError where one of that name is there."""
        found = self.columns.setdefault(column.name, where)
        if found is where:
            return
        marks = {"join": "write `columns: {another_name: …}`", "cluster": "take one of the two out"}
        if where.kind == "mark":
            remedy = marks.get(step, "write another name behind `mark:`")
        else:
            remedy = "call yours otherwise" if step == "derive" else f"write `as: <prefix>` beside {step}"
        who = {"source": "the source has already", "part": "every row has"}.get(found.kind, "an earlier step added")
        if found.kind == "source":
            remedy = (
                "read the source's under another name: "
                f"source: {{columns: {{source_{column.name}: {column.name}}}}} (or behind `arrays:`), or {remedy}"
            )
        raise InputError(f"adds column {column.name!r}, which {who}; {remedy}")

    def require(self, wanted: Column, name: str) -> None:
        """Raise InputError where there is no column of that name, or one of another type than an operator reads."""
        if name not in self.columns:
            adders = [operator for operator in operator_names() if name in self._added_by(operator)]
            hint = f"; added by: {', '.join(adders)}" if adders else ""
            so_far = ", ".join(self.columns)
            raise InputError(f"reads column {name!r}, which no earlier step adds (so far: {so_far}){hint}")
        found = self.columns[name].column.type
        if not _fits(wanted, found):
            raise InputError(f"reads column {name!r} as {wanted.type}, but it is {found}")

    def _added_by(self, name: str) -> list[str]:
        try:
            cls = self.registry.operator(name).operator_class()
            return [column.name for column in cls(**example_parameters(cls)[0]).adds]
        except (ValidationError, InputError, AttributeError):
            return []


def source_columns(extra: Mapping[str, pa.DataType]) -> dict[str, Where]:
    """The columns before the first step: key, url, caption, and the source's own."""
    columns = {column.name: Where(column, "part") for column in (c.KEY, c.URL, c.CAPTION)}
    for name, kind in extra.items():
        columns[name] = Where(Column(name, kind, "from the source"), "source")
    return columns


def _fits(wanted: Column, found: pa.DataType) -> bool:
    if wanted.type == pa.binary():
        return bool(pa.types.is_fixed_size_binary(found))  # an embedding of any width
    if pa.types.is_string(wanted.type) and pa.types.is_large_string(found):
        return True
    return bool(wanted.type == found)
