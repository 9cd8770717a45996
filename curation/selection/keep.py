"""`keep: <SQL>`: rows for which a predicate over their own columns is true live on."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation import sql
from curation.selection.step import DatasetStep
from schemas.errors import InputError

_KEPT = "kept"


class Keep(DatasetStep):
    """Keeps the rows for which an SQL predicate is true; NULL counts as false."""

    barrier: ClassVar[bool] = False
    predicate: str = Field(description="SQL over the row's columns; an error on a row stops the run, try(…) does not")

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """As it is written in YAML: `keep: <SQL>`."""
        return {"type": "string", "description": "SQL predicate over the row's columns"}

    @property
    def inputs(self) -> dict[str, str]:
        """The predicate."""
        return {_KEPT: self.predicate}

    @property
    def reason(self) -> str:
        """Why a row is dropped: the predicate itself."""
        return self.predicate

    def check(self, types: Mapping[str, pa.DataType]) -> None:
        """Refuse what is no predicate."""
        if not pa.types.is_boolean(types[_KEPT]):
            raise InputError(f"is no predicate: {self.predicate} is {types[_KEPT]}; compare it with something")

    def keep_mask(self, rows: pa.Table) -> np.ndarray:
        """Which rows live on, bool_N."""
        kept = sql.evaluate(self.inputs, rows)[_KEPT]
        return pc.fill_null(kept, False).to_numpy()
