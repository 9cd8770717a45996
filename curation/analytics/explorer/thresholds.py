"""How many rows a `keep` or a `top` would leave, which pictures lie on either side of its edge, and its YAML.

Counted on the rows that are alive where the step would stand, and on the current selection as if it were the pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from curation.analytics.explorer.facets import Category, Signal
from curation.analytics.explorer.ranking import first_of_groups, ranked
from curation.analytics.explorer.selecting import Selector, column_sql, range_sql
from curation.analytics.explorer.table import Table
from curation.analytics.explorer.wishes import Threshold
from curation.selection.top import Top
from schemas.errors import InputError

_SHOWN, _GROUPS_SHOWN = 6, 12
_ANY_WIDTH = 1 << 30


@dataclass(frozen=True)
class Effect:
    """What a threshold does to a base of rows: how many it has, how many stay; per group where it decides in groups."""

    of: int
    kept: int
    kept_N: np.ndarray
    groups: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Edge:
    """Row numbers on either side of a threshold, nearest first."""

    kept: np.ndarray
    dropped: np.ndarray


def alive(table: Table, before: str) -> np.ndarray:
    """Which rows are alive before a step of that name, bool_N; empty: at the end. Raises InputError."""
    if not before:
        return table.step_N == len(table.steps)
    if before not in table.steps[1:]:
        raise InputError(f"{before}: is no step of {table.chosen.label}; there are {', '.join(table.steps[1:])}")
    return table.step_N >= table.steps.index(before)


def effect(table: Table, wish: Threshold, base_N: np.ndarray) -> Effect:
    """What the threshold would do if the rows of the base were all. Raises InputError for one that cannot be."""
    signal, of = table.signal(wish.signal), int(np.count_nonzero(base_N))
    if wish.kind == "keep":
        kept_N = base_N & signal.within(wish.low, wish.high)
        return Effect(of, int(np.count_nonzero(kept_N)), kept_N)
    step = top_step(wish)
    group = table.category(wish.per) if wish.per else None
    found = first_of_groups(signal, base_N, group, lambda size: quota(step, size), highest=wish.order == "desc")
    groups = _groups(group, found.size_G, found.quota_G) if group else ()
    return Effect(of, int(found.quota_G.sum()), found.kept_N, groups)


def edges(signal: Signal, seen_N: np.ndarray, kept_N: np.ndarray, wish: Threshold) -> list[Edge]:
    """The rows nearest to each side of the threshold's edges, of those that are seen."""
    sides = []
    if wish.kind == "top":
        sides.append(wish.order == "desc")
    else:
        sides += [True] * (wish.low is not None) + [False] * (wish.high is not None)
    return [_edge(signal, seen_N, kept_N, wish, keeps_highest=side) for side in sides]


def _edge(signal: Signal, seen_N: np.ndarray, kept_N: np.ndarray, wish: Threshold, *, keeps_highest: bool) -> Edge:
    dropped_N = seen_N & ~kept_N & signal.within(None, None)
    if wish.kind == "keep" and wish.low is not None and wish.high is not None:  # only what lies on this edge's side
        dropped_N &= signal.within(None, wish.low) if keeps_highest else signal.within(wish.high, None)
    inner = ranked(signal, seen_N & kept_N, 0, _SHOWN, highest=not keeps_highest)
    return Edge(inner, ranked(signal, dropped_N, 0, _SHOWN, highest=keeps_highest))


def step_yaml(table: Table, wish: Threshold) -> str:
    """The step as it is pasted under `steps:`."""
    if wish.kind == "keep":
        return as_step({"keep": range_sql(table.signal(wish.signal), wish.low, wish.high)})
    step = top_step(wish)
    said: dict[str, Any] = {"by": column_sql(wish.signal)}
    said |= {"fraction": float(step.fraction)} if step.fraction is not None else {"rows": step.rows}
    said |= {"per": wish.per} if wish.per else {}
    said |= {"order": wish.order} if wish.order == "asc" else {}
    return as_step({"top": said})


def as_step(step: Mapping[str, Any]) -> str:
    """One step as YAML, its parameters on one line."""
    ((name, said),) = step.items()
    if isinstance(said, str):
        return yaml.safe_dump([step], width=_ANY_WIDTH, allow_unicode=True)
    flow = yaml.safe_dump(said, default_flow_style=True, sort_keys=False, width=_ANY_WIDTH, allow_unicode=True)
    return f"- {name}: {flow}"


def threshold(table: Table, selector: Selector, wish: Threshold) -> dict[str, Any]:
    """The whole answer, rows as numbers of the table."""
    whole_N, selected_N = alive(table, wish.before), selector.choose(wish.selection).kept_N
    whole, selected = effect(table, wish, whole_N), effect(table, wish, selected_N)
    seen_N = whole_N & selected_N
    return {
        "alive": {"of": whole.of, "kept": whole.kept},
        "selected": {"of": selected.of, "kept": selected.kept},
        "groups": whole.groups,
        "edges": edges(table.signal(wish.signal), seen_N, whole.kept_N, wish),
        "yaml": step_yaml(table, wish),
    }


def top_step(wish: Threshold) -> Top:
    """The step of the specification. Raises InputError."""
    size: dict[str, Any] = {"rows": wish.rows} if wish.rows is not None else {"fraction": wish.fraction}
    try:
        return Top(by=wish.signal, per=wish.per, order=wish.order, **size)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"top: {where + ': ' if where else ''}{said}") from error


def quota(step: Top, size: int) -> int:
    """How many of `size` rows with a value stay: floor(fraction · size) with the fraction as it is written."""
    if step.rows is not None:
        return min(step.rows, size)
    assert isinstance(step.fraction, Decimal)
    return int(Fraction(step.fraction) * size)


def _groups(group: Category, size_G: np.ndarray, quota_G: np.ndarray) -> tuple[Mapping[str, Any], ...]:
    """The largest groups."""
    labels = [*group.labels, None]
    order = np.argsort(-size_G, kind="stable")[:_GROUPS_SHOWN].tolist()
    return tuple({"label": labels[g], "of": int(size_G[g]), "kept": int(quota_G[g])} for g in order if size_G[g])
