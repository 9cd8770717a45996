"""Fractions and thresholds as the decimals that were written."""

from decimal import Decimal
from typing import Any


def as_written(value: Any) -> Any:
    """The decimal that was written: 0.29 is 29/100, not the nearest double below it. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return Decimal(repr(value)) if isinstance(value, float | int) else value
