"""Which steps of two specifications are the same: those declared alike, and between them those of the same kind."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

Declared = Sequence[Mapping[str, Any]]  # steps as a manifest holds them: name, parameters, id …
Name = Callable[[Mapping[str, Any]], Hashable]


@dataclass(frozen=True)
class Line:
    """A step by its places before and now; None on the side that does not have it."""

    before: int | None
    now: int | None
    changed: bool = False  # whether it is declared otherwise


def aligned(before: Declared, now: Declared) -> list[Line]:
    """The steps of both sides in one order, each once."""
    pairs = _paired(range(len(before)), range(len(now)), before, now, (_spelled, _kind))
    return [
        Line(i, j, changed=i is not None and j is not None and _spelled(before[i]) != _spelled(now[j]))
        for i, j in pairs
    ]


def _paired(
    olds: range, news: range, before: Declared, now: Declared, names: Sequence[Name]
) -> list[tuple[int | None, int | None]]:
    """Pair steps by the first of the names; what lies between those that have the same, by the next."""
    if not names:
        return [*((old, None) for old in olds), *((None, new) for new in news)]
    name, *others = names
    left, right = [name(before[old]) for old in olds], [name(now[new]) for new in news]
    found: list[tuple[int | None, int | None]] = []
    for tag, i, i_end, j, j_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            found += zip(olds[i:i_end], news[j:j_end], strict=True)
        else:
            found += _paired(olds[i:i_end], news[j:j_end], before, now, others)
    return found


def _spelled(step: Mapping[str, Any]) -> str:
    return json.dumps(step, sort_keys=True, ensure_ascii=False)


def _kind(step: Mapping[str, Any]) -> Hashable:
    return step["name"], step.get("id"), step.get("as_prefix")
