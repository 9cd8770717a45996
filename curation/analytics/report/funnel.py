"""The funnel: rows into and out of every step, why the others did not pass, and what each filter does by itself."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from curation.analytics.report.contents import Column, Plot, Section, Table
from curation.analytics.report.filters import Filter, Filters
from curation.analytics.report.questions import Questions

_STEP_COLUMNS = (
    Column("step", "Step"),
    Column("kind", "Kind"),
    Column("rows_in", "Rows in", "count"),
    Column("rows_out", "Rows out", "count"),
    Column("gone", "Gone", "count"),
    Column("reason", "Why"),
)
_MOST_FILTERS = 24  # a wider matrix cannot be read


def funnel(asked: Questions) -> Section:
    """Every step with its counts and reasons."""
    manifest = asked.manifest
    rows = [
        {"step": entry.step, "kind": entry.kind, "rows_in": entry.rows_in, "rows_out": entry.rows_out}
        | {"gone": entry.rows_in - entry.rows_out, "reason": entry.reason}
        for entry in manifest.funnel
    ]
    failures = asked.ask("failures")
    text = f"Of {manifest.pool:,} rows of the source {manifest.rows:,} were curated."
    said = [f"{row['step']}: {row['rows_in']:,} in, {row['rows_out']:,} out" for row in rows]
    blocks: list[Table | Plot] = [
        Plot("steps", "Rows at every step", "funnel", "; ".join(said), _parts(rows, manifest.operators)),
        Table("steps", "Steps", _STEP_COLUMNS, rows),
    ]
    if failures:
        classes = (Column("step", "Step"), Column("class", "Class of failure"), Column("rows", "Rows", "count"))
        blocks.append(Table("failures", "Failures", classes, failures))
    return Section("funnel", "Funnel", (text,), tuple(blocks))


def _parts(rows: Sequence[Mapping[str, Any]], operators: Collection[str]) -> list[dict[str, Any]]:
    """Per step the rows that passed, and those that ended there: dropped by filters, failed elsewhere."""
    found = []
    for place, row in enumerate(rows):
        ended = "failed" if row["step"] in operators or place == 0 else "dropped"
        for layer, (part, count) in enumerate((("passed", row["rows_out"]), (ended, row["gone"]))):
            found.append({"step": row["step"], "layer": layer, "part": part, "rows": count, "why": row["reason"]})
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
        "the threshold that it came to; whether a dedup, or another step that looks at all rows, would have dropped "
        "them nobody knows. Rows that failed are left out.",
        "“Alone” are the rows that this filter drops and no other is known to drop: what would come back without "
        "it, at most. Of “all known” of them it is known that every other filter passes them: what would come back at "
        "least.",
        "Below, each field compares two filters over the rows that the earlier one drops and of which the later one is "
        "known; ? where it is known of none of them. What one filter drops stands on the diagonal.",
    )
    pairs = _pairs(found, patterns)
    said = (
        f"{pair['filter']} and {pair['other']}: {pair['rows']:,} of {pair['compared']:,}"
        for pair in pairs
        if pair["rows"] and pair["filter"] != pair["other"]
    )
    settings = {"order": [each.step for each in found]}
    matrix = Plot("overlap", "Rows that both filters drop", "matrix", "; ".join(said), pairs, settings)
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
    """Every pair of filters: of the rows that the earlier drops and the later is known of, how many both drop."""
    found = []
    for i, one in enumerate(filters):
        for j, other in enumerate(filters):
            first, second = sorted((i, j))
            compared = [row for row in patterns if row[first] is False and row[second] is not None]
            both = sum(rows for *outcomes, rows in compared if outcomes[second] is False)
            total = sum(rows for *_, rows in compared)
            count = both if total else None
            found.append({"filter": one.step, "other": other.step, "rows": count, "compared": total})
    return found
