"""Sizes and format of the stored picture."""

from typing import Any, ClassVar

from curation.operator import Batch, Failure, Operator, Output, Resources
from schemas import columns as c
from schemas.columns import Column
from schemas.pixels import DecodeError, picture_size, stored_format


class InspectImage(Operator):
    """Width, height, format and length of the stored picture, from its header."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @property
    def reads(self) -> tuple[Column, ...]:
        """The stored picture."""
        return (c.IMAGE,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """Width, height, format and length."""
        return (c.WIDTH_PX, c.HEIGHT_PX, c.FORMAT, c.SIZE_BYTES)

    def run(self, batch: Batch, opened: Any) -> Output:
        """Sizes of each picture of a batch."""
        values: dict[str, list[Any]] = {column.name: [None] * len(batch) for column in self.adds}
        failures = {}
        for row, stored in enumerate(batch.stored):
            assert stored is not None
            try:
                width_px, height_px = picture_size(stored)
                found = (width_px, height_px, stored_format(stored), len(stored))
            except DecodeError as error:
                failures[row] = Failure(error.status, str(error))
                continue
            for column, value in zip(self.adds, found, strict=True):
                values[column.name][row] = value
        return Output(values, failures)
