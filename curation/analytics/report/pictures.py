"""Rows that are worth seeing: the nearest on both sides of each threshold, and groups of duplicates."""

from collections.abc import Mapping, Sequence

from curation.analytics.report.contents import Column, Gallery, Picture, Section, Table
from curation.analytics.report.filters import Filter, Filters
from curation.analytics.report.questions import CAPTION, Questions
from curation.analytics.report.thresholds import Threshold

_EACH_SIDE = 6
_GROUPS = 6
_MEMBERS = 7
_SIZES = 12


def edges(asked: Questions, filters: Filters) -> Section:
    """For each threshold, the nearest rows that passed its step and the nearest that it dropped."""
    title = "At the edge of each threshold"
    pairs = [(each, threshold) for each in filters.all for threshold in each.thresholds]
    if not pairs:
        return Section("edges", title, ("No filter compares a signal with a number.",))
    text = (
        "For each threshold the rows that passed its step and came nearest to being dropped, and the rows that it "
        "dropped and that came nearest to passing. Pictures that no step had fetched by then are not there."
    )
    groups = [each.step for each in filters.all if each.kind == "top" and not each.thresholds]
    more = (f"Thresholds that {', '.join(groups)} found for each group are not drawn.",) if groups else ()
    return Section("edges", title, (text, *more), tuple(_edge(asked, filters, *pair) for pair in pairs))


def _edge(asked: Questions, filters: Filters, each: Filter, threshold: Threshold) -> Gallery:
    # Of a `top`, rows with the very value of the last one that passed may have been dropped, too.
    fails = "true" if each.kind == "top" else f"NOT coalesce({threshold.condition}, false)"
    sides = {
        "passed": f"__place__ > {each.place} AND {threshold.condition}",
        "dropped": f"fate = 'dropped' AND __place__ = {each.place} AND {fails}",
    }
    found = {}
    for side, condition in sides.items():
        values = {"limit": threshold.value, "most": _EACH_SIDE}
        pieces = {"expression": threshold.expression, "placed": filters.placed, "side": condition}
        nearest = {row["key"]: row["value"] for row in asked.ask("edge", values, **pieces)}
        found[side] = _pictures(asked, {key: f"{value:.6g}" for key, value in nearest.items()}, passed=side == "passed")
    return Gallery(f"{each.step}: {threshold.text}", f"{threshold.text} ({each.step})", found)


def duplicates(asked: Questions, filters: Filters) -> Section:
    """For each step that finds duplicates, how large the groups are, and the largest with their chosen row first."""
    title = "Duplicates"
    steps = [each for each in filters.all if each.kind == "dedup"]
    if not steps:
        return Section("duplicates", title, ("No step looks for duplicates.",))
    blocks: list[Gallery | Table] = []
    for each in steps:
        sizes = asked.ask("duplicate_sizes", {"step": each.step, "most": _SIZES})
        columns = (Column("size", "Rows in a group", "count"), Column("groups", "Groups", "count"))
        blocks.append(Table(f"sizes of {each.step}", f"{each.step}: {each.removed:,} rows dropped", columns, sizes))
        blocks += _groups(asked, each)
    text = "The largest groups, each with the row that was kept. A kept row may have been dropped by a later step."
    return Section("duplicates", title, (text,), tuple(blocks))


def _groups(asked: Questions, each: Filter) -> list[Gallery]:
    groups = asked.ask("duplicate_groups", {"step": each.step, "most": _GROUPS})
    if not groups:
        return []
    values = {"step": each.step, "most": _MEMBERS, "chosen": [group["chosen"] for group in groups]}
    members = {row["chosen"]: row["members"] for row in asked.ask("duplicate_members", values)}
    galleries = []
    for group in groups:
        chosen, rows = group["chosen"], group["rows"]
        kept = _pictures(asked, {chosen: ""}) or (Picture(chosen, "", "a row of another set"),)
        dropped = _pictures(asked, dict.fromkeys(members[chosen], ""), passed=False)
        shown = "" if rows == len(dropped) else f", {len(dropped)} of them shown"
        name = f"{each.step}: {rows:,} {'duplicate' if rows == 1 else 'duplicates'} of {chosen[:8]}{shown}"
        galleries.append(Gallery(name, name, {"kept": kept, "dropped": dropped}))
    return galleries


def _pictures(asked: Questions, said: Mapping[str, str], *, passed: bool = True) -> tuple[Picture, ...]:
    """The rows with those keys, in their order, with what is said of each; rows that the samples lack are left out.

    Of those that passed a step it is said where they ended.
    """
    if not said:
        return ()
    rows = {row["key"]: row for row in asked.ask("shown", keys=_listed(list(said)), caption=CAPTION)}
    return tuple(
        Picture(key, rows[key]["caption"] or "", ", ".join(filter(None, (text, _ended(rows[key]) if passed else ""))))
        for key, text in said.items()
        if key in rows
    )


def _ended(row: Mapping[str, str | None]) -> str:
    return f"{row['fate']} at {row['fate_step']}" if row["fate_step"] else str(row["fate"])


def _listed(keys: Sequence[str]) -> str:
    """Keys as constants, which DuckDB holds against each row group's least and greatest."""
    return ", ".join("'" + key.replace("'", "''") + "'" for key in keys)
