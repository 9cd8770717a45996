"""What a model's head makes logits of, without making them: for losses that take the logits of few tokens alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from training.generative.families import Family


def hidden_states(model: Any, family: Family, inputs: Mapping[str, Any]) -> Tensor:
    """Last hidden states BLD below the head, of a decoder with answers of its own (T5's) those of the answers.

    Without a cache, which would join samples that are packed apart.
    """
    if family.trunk:
        below_BLD: Tensor = model.get_submodule(family.trunk)(**inputs, use_cache=False).last_hidden_state
        return below_BLD
    with _without_head(model, family):  # whose class gives logits alone
        passed_BLD: Tensor = model(**inputs, use_cache=False).logits
        return passed_BLD


@contextmanager
def _without_head(model: Any, family: Family) -> Iterator[None]:
    """The model with a head that passes on what it is given."""
    parent, _, last = family.roles["head"][0].rpartition(".")
    holder = model.get_submodule(parent)
    head = getattr(holder, last)
    setattr(holder, last, nn.Identity())
    try:
        yield
    finally:
        setattr(holder, last, head)
