"""What two records that should be of one thing have apart."""

from collections.abc import Mapping
from typing import Any


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names whose values differ, sorted."""
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
