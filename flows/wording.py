"""Numbers and progress as sentences for people."""

from collections.abc import Mapping, Sequence
from typing import Any


def count(number: int) -> str:
    """12,000"""
    return f"{number:,}"


def rate(rows_per_s: float | None) -> str:
    """431 rows/s"""
    if rows_per_s is None:
        return "-"
    return f"{rows_per_s:,.0f} rows/s" if rows_per_s >= 10 else f"{rows_per_s:.1f} rows/s"


def duration(seconds: float | None) -> str:
    """1:02:03, 2:03, 0:03"""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def drops(dropped: Mapping[str, int]) -> str:
    """312 steps[2] download, 40 steps[4] keep"""
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    return ", ".join(f"{count(rows)} {label}" for label, rows in ordered)


def progress_line(record: Mapping[str, Any]) -> str:
    """One line that says where a run is; `record` is `progress.as_record`."""
    if record["activity"] == "writes shards":
        return f"writes shards: {record['shards_written']:,} of {record['shards']:,}"
    if not record["label"]:
        return str(record["activity"])
    line = (
        f"stage {record['stage'] + 1} of {record['stages']}, {record['label']}: "
        f"{count(record['rows_done'])} of {count(record['rows'])} rows"
    )
    if record["rows_per_s"] is not None:
        line += f", {rate(record['rows_per_s'])}"
    if record["eta_s"] is not None:
        line += f", {duration(record['eta_s'])} left"
    return line + (f"; dropped so far: {drops(record['dropped'])}" if record["dropped"] else "")


def columns_of(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of cells as aligned text; the columns in `right` are set to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    lines = [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def funnel_text(funnel: Sequence[Mapping[str, Any]]) -> str:
    """A funnel as aligned text."""
    head = [("step", "rows in", "rows out", "dropped", "why")]
    body = [
        (
            str(row["step"]),
            count(row["rows_in"]),
            count(row["rows_out"]),
            count(row["rows_in"] - row["rows_out"]),
            str(row["reason"]),
        )
        for row in funnel
    ]
    return columns_of([*head, *body], right=(1, 2, 3))


def funnel_warnings(funnel: Sequence[Mapping[str, Any]], dataset_steps: Sequence[str]) -> list[str]:
    """A sentence for every operator at which most rows failed: more often a mistake than a bad web."""
    found = []
    for row in funnel:
        failed = row["rows_in"] - row["rows_out"]
        if row["kind"] not in ("source", *dataset_steps) and 2 * failed > row["rows_in"]:
            found.append(
                f"warning: {count(failed)} of {count(row['rows_in'])} rows failed at {row['step']} ({row['reason']}); "
                "`SELECT fate_reason, count(*) FROM samples GROUP BY ALL` says why"
            )
    return found
