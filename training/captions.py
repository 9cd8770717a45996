"""Tokens of captions, remembered, and captions that are empty once tokenised.

Shapes: B captions, T tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

_MOST_REMEMBERED = 65_536


@dataclass
class Tokens:
    """Tokens of captions; a caption seen before is not tokenised again, which takes longer than its forward pass."""

    tokenize: Callable[[list[str]], Any]
    _known: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, captions: Sequence[str]) -> np.ndarray:
        """int64 `tokens_BT` of captions."""
        new = list(dict.fromkeys(caption for caption in captions if caption not in self._known))
        if len(self._known) + len(new) > _MOST_REMEMBERED:
            self._known, new = {}, list(dict.fromkeys(captions))
        if new:
            self._known |= zip(new, np.asarray(self.tokenize(new), np.int64), strict=True)
        return np.stack([self._known[caption] for caption in captions])

    def unless_empty(self, captions: Sequence[str]) -> list[np.ndarray | None]:
        """`tokens_T` of each caption; None for one of which nothing is left: a picture beside it teaches nothing."""
        if not captions:
            return []
        tokens_BT = self.of(captions)
        told_B = (tokens_BT != self._nothing_T).any(axis=1)
        return [tokens_T if told else None for tokens_T, told in zip(tokens_BT, told_B.tolist(), strict=True)]

    @cached_property
    def _nothing_T(self) -> np.ndarray:
        nothing_1T = np.asarray(self.tokenize([""]), np.int64)
        return nothing_1T[0]
