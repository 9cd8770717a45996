"""The funnel: rows into and out of every step, why the others did not pass, and what each filter does by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from curation.analytics.report.contents import Column, Plot, Section, Table
from curation.analytics.report.filters import Filter, Filters
from curation.analytics.report.questions import Questions

_MOST_FILTERS = 24  # a wider matrix cannot be read


def funnel(asked: Questions) -> Section:
    """Every step with its counts and reasons."""
    manifest = asked.manifest
    rows = [
        {"step": entry.step, "kind": entry.kind, "rows_in": entry.rows_in, "rows_out": entry.rows_out}
        | {"gone": entry.rows_in - entry.rows_out, "reason": entry.reason}
        for entry in manifest.funnel
    ]
    columns = (Column("step", "Step"), Column("kind", "Kind"), Column("rows_in", "Rows in", "count"))
    columns += (Column("rows_out", "Rows out", "count"), Column("gone", "Gone", "count"), Column("reason", "Why"))
    failures = asked.ask("failures")
    text = f"Of {manifest.pool:,} rows of the source {manifest.rows:,} were curated."
    said = [f"{row['step']}: {row['rows_in']:,} in, {row['rows_out']:,} out" for row in rows]
    blocks: list[Table | Plot] = [
        Plot("steps", "Rows at every step", "funnel", "; ".join(said), _shares(rows)),
        Table("steps", "Steps", columns, rows),
    ]
    if failures:
        classes = (Column("step", "Step"), Column("class", "Class of failure"), Column("rows", "Rows", "count"))
        blocks.append(Table("failures", "Failures", classes, failures))
    return Section("funnel", "Funnel", (text,), tuple(blocks))


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per step the rows that passed, and those that ended there."""
    found = []
    for place, row in enumerate(rows):
        for part in ("passed", "gone"):
            count = row["rows_out"] if part == "passed" else row["gone"]
            found.append({"place": place, "step": row["step"], "part": part, "rows": count, "why": row["reason"]})
    return found


def overlap(asked: Questions, filters: Filters) -> Section:
    """What each filter removes alone, and which rows several would remove."""
    found = filters.all[:_MOST_FILTERS]
    title = "What each filter removes"
    if not found:
        return Section("filters", title, ("The specification has no step that drops rows.",))
    outcomes = ", ".join(f"{each.outcome} AS filter_{number}" for number, each in enumerate(found))
    patterns = [list(row.values()) for row in asked.ask("overlap", outcomes=outcomes, placed=filters.placed)]
    text = (
        "A row that a filter drops is seen by no later step: its later signals are not computed. So a filter is held "
        "against an earlier one's rows only where it compares columns that were known when they were dropped, and by "
        "the threshold that it came to; whether `dedup` and other steps that look at all rows would have dropped them "
        "nobody knows. Rows that failed are left out.",
        "“Alone” are the rows that this filter drops and no other is known to drop: what would come back without "
        "it, at most. Of “all known” of them it is known that every other filter passes them: what would come back at least.",
    )
    matrix = Plot(
        "overlap",
        "Rows that both filters drop, of those where both are known",
        "matrix",
        "; ".join(f"{each.step} drops {each.removed:,}" for each in found),
        _pairs(found, patterns),
        {"order": [each.step for each in found]},
    )
    columns = (
        Column("step", "Filter"),
        Column("kind", "Kind"),
        Column("removed", "Dropped here", "count"),
        Column("fails", "Would drop, as far as known", "count"),
        Column("shared", "Others would, too", "count"),
        Column("alone", "Alone", "count"),
        Column("all_known", "… all known", "count"),
    )
    table = Table("filters", "Filters", columns, [_effect(found, patterns, number) for number in range(len(found))])
    blocks = (table, matrix) if len(found) > 1 else (table,)
    return Section("filters", title, text, blocks)


def _effect(filters: Sequence[Filter], patterns: Sequence[Sequence[Any]], number: int) -> dict[str, Any]:
    """How many rows one filter drops, by what is known of the other filters."""
    counts = {"fails": 0, "shared": 0, "alone": 0, "all_known": 0}
    for *outcomes, rows in patterns:
        if outcomes[number] is not False:
            continue
        others = outcomes[:number] + outcomes[number + 1 :]
        counts["fails"] += rows
        counts["shared" if False in others else "alone"] += rows
        counts["all_known"] += rows if all(others) else 0
    each = filters[number]
    return {"step": each.step, "kind": each.kind, "removed": each.removed} | counts


def _pairs(filters: Sequence[Filter], patterns: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Every pair of filters: how many rows both drop, and of how many rows both outcomes are known."""
    found = []
    for i, one in enumerate(filters):
        for j, other in enumerate(filters):
            known = [pattern for pattern in patterns if pattern[i] is not None and pattern[j] is not None]
            both = sum(pattern[-1] for pattern in known if pattern[i] is False and pattern[j] is False)
            total = sum(pattern[-1] for pattern in known)
            found.append({"filter": one.step, "other": other.step, "rows": both, "known": total})
    return found
