"""The numbers that are known of rows: how large they are, and histograms by fate with thresholds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.analytics.explain import SOURCE
from curation.analytics.report.contents import Column, Plot, Section, Table
from curation.analytics.report.filters import Filters
from curation.analytics.report.questions import Questions
from curation.analytics.report.thresholds import Threshold
from curation.sql_expression import quoted
from schemas import columns as c

_BINS = 48
_MOST_SIGNALS = 40
_WIDE = 30  # a signal whose 99.5th percentile is so many times its median is drawn on a logarithmic axis
_NUMBERS = ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
_NO_SIZE = {c.CLUSTER.name}  # numbers that only name something; 64-bit hashes are told by their type
_ABOUT = (
    "Curated, dropped and failed rows apart, with the thresholds of filters drawn in. A signal is known only of rows "
    "that were alive at its step. Values in the outermost half per cent are counted in the last bins."
)
_FATES = ("curated", "dropped", "failed")


@dataclass(frozen=True)
class Signal:
    """A column, or an expression that a filter compares; `expression` is SQL."""

    name: str
    expression: str
    meaning: str
    thresholds: tuple[Threshold, ...] = ()


@dataclass(frozen=True)
class _Bins:
    """Equal bins on a plain or a logarithmic axis."""

    start: float
    width: float
    count: int
    is_log: bool

    def edge(self, number: int) -> float:
        at = self.start + number * self.width
        return math.exp(at) if self.is_log else at


def signals_of(asked: Questions, filters: Filters) -> list[Signal]:
    """All signals: those with thresholds first, then in the order in which steps added them, the source's last."""
    columns = sorted(asked.manifest.columns, key=lambda column: column.step == SOURCE)
    meanings = {column.name: column.meaning for column in columns}
    thresholds: dict[str, list[Threshold]] = {}
    for threshold in filters.thresholds:
        thresholds.setdefault(threshold.name, []).append(threshold)
    numbers = [name for name in meanings if _is_signal(asked.types.get(name, ""), name)]
    found = []
    for name in dict.fromkeys([*thresholds, *numbers]):
        expression = thresholds[name][0].expression if name in thresholds else quoted(name)
        meaning = meanings.get(name, "an expression that a filter compares")
        found.append(Signal(name, expression, meaning, tuple(thresholds.get(name, ()))))
    return found


def signals(asked: Questions, filters: Filters) -> Section:
    """A summary of every signal, and a histogram of each that varies."""
    every = signals_of(asked, filters)
    rows, plots = [], []
    for signal in every[:_MOST_SIGNALS]:
        (summary,) = asked.ask("summary", expression=signal.expression)
        rows.append(_row(signal, summary))
        if summary["known"] and summary["least"] < summary["greatest"]:
            plots.append(_histogram(asked, signal, summary))
    if not rows:
        return Section("signals", "Signals", ("No column of the samples holds numbers.",))
    text = [_ABOUT]
    if len(every) > _MOST_SIGNALS:
        text.append(f"The first {_MOST_SIGNALS} of {len(every)} signals are shown.")
    return Section("signals", "Signals", tuple(text), (_summary_table(rows), *plots))


def _summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("signal", "Signal"), Column("known", "Known of", "count"), Column("missing", "Missing", "count")]
    names = ("least", "quarter", "median", "three_quarters", "greatest")
    headings = ("Least", "¼", "Median", "¾", "Greatest")
    columns += [Column(name, heading, "number") for name, heading in zip(names, headings, strict=True)]
    return Table("signals", "How large they are", (*columns, Column("thresholds", "Thresholds")), rows)


def _row(signal: Signal, summary: Mapping[str, Any]) -> dict[str, Any]:
    quantiles = summary["quantiles"] or [None] * 5
    held = ", ".join(f"{t.operator} {t.value:.6g} ({t.step})" for t in signal.thresholds)
    sizes = {"least": summary["least"], "quarter": quantiles[1], "median": quantiles[2]}
    sizes |= {"three_quarters": quantiles[3], "greatest": summary["greatest"]}
    counts = {"known": summary["known"], "missing": summary["missing"]}
    return {"signal": signal.name, **counts, **sizes, "thresholds": held}


def _histogram(asked: Questions, signal: Signal, summary: Mapping[str, Any]) -> Plot:
    bins = _bins(summary, signal.thresholds)
    values = {"bins": bins.count, "start": bins.start, "width": bins.width, "is_log": bins.is_log}
    values["floor"] = math.exp(bins.start) if bins.is_log else 0.0
    counted = {
        (row["fate"], row["bin"]): row["rows"] for row in asked.ask("histogram", values, expression=signal.expression)
    }
    rows = [
        {"start": bins.edge(number), "end": bins.edge(number + 1), "fate": fate, "rows": counted.get((fate, number), 0)}
        for number in range(bins.count)
        for fate in _FATES
        if (fate, number) in counted
    ]
    lines = [{"step": t.step, "operator": t.operator, "value": t.value} for t in signal.thresholds]
    total = summary["known"] + summary["missing"]
    said = f"{signal.name} ({signal.meaning}), known of {summary['known']:,} of {total:,} rows: from "
    said += f"{summary['least']:.6g} to {summary['greatest']:.6g}, median {summary['quantiles'][2]:.6g}"
    said += "".join(f"; {t.step} wants {t.text}" for t in signal.thresholds)
    settings = {"meaning": signal.meaning, "known": summary["known"], "total": total, "is_log": bins.is_log}
    return Plot(f"histogram_{signal.name}", signal.name, "histogram", said, rows, settings | {"thresholds": lines})


def _bins(summary: Mapping[str, Any], thresholds: Sequence[Threshold]) -> _Bins:
    """Bins over all but the outermost values and over the thresholds; of few whole numbers one each."""
    low, _, median, _, high = summary["quantiles"]
    low, high = min([low, *(t.value for t in thresholds)]), max([high, *(t.value for t in thresholds)])
    if low == high:  # nearly all values are the same
        low, high = summary["least"], summary["greatest"]
    if low > 0 and high > _WIDE * max(median, low):
        start = math.log(low)
        return _Bins(start, (math.log(high) - start) * (1 + 1e-9) / _BINS, _BINS, is_log=True)
    if all(float(summary[name]).is_integer() for name in ("least", "greatest")) and float(median).is_integer():
        width = max(1, math.ceil((high - low + 1) / _BINS))
        return _Bins(low - 0.5, width, math.ceil((high - low + 1) / width), is_log=False)
    return _Bins(low, (high - low) * (1 + 1e-9) / _BINS, _BINS, is_log=False)


def _is_signal(kind: str, name: str) -> bool:
    return kind.startswith(_NUMBERS) and not kind.endswith("]") and name not in _NO_SIZE
