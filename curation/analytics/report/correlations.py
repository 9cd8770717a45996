"""How signals go together: Spearman's rank correlation of a sample of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.analytics.report.contents import Plot, Section
from curation.analytics.report.filters import Filters
from curation.analytics.report.questions import Questions
from curation.analytics.report.signals import signals_of

_MOST_SIGNALS = 24
_ROWS = 20_000
_SAID_PAIRS = 5


def correlations(asked: Questions, filters: Filters) -> Section:
    """How signals go together: Spearman's rank correlation, over rows that have both."""
    title = "How signals go together"
    every = signals_of(asked, filters)[:_MOST_SIGNALS]
    columns = "".join(f", TRY(({signal.expression})::DOUBLE) AS s{i}" for i, signal in enumerate(every))
    answer = asked.ask("correlation", {"rows": _ROWS}, columns=columns)
    values_NS = np.array([list(row.values())[1:] for row in answer], np.float64).reshape(len(answer), len(every))
    varying = [i for i, values_N in enumerate(values_NS.T) if np.unique(values_N[np.isfinite(values_N)]).size > 1]
    found, values_NS = [every[i] for i in varying], values_NS[:, varying]
    if len(found) < 2:
        return Section("correlations", title, ("There are no two signals that vary.",))
    names = [signal.name for signal in found]
    pairs = _pairs(names, values_NS)
    text = (
        f"Spearman's rank correlation over {len(values_NS):,} rows by chance, for each pair over those that have both."
    )
    strong = sorted(pairs, key=lambda pair: (-abs(pair["value"] or 0.0), pair["signal"], pair["other"]))
    strong = [pair for pair in strong if pair["signal"] < pair["other"] and pair["value"] is not None][:_SAID_PAIRS]
    said = "; ".join(f"{pair['signal']} and {pair['other']}: {pair['value']:.2f}" for pair in strong)
    plot = Plot("correlations", "Rank correlation", "correlation", said, pairs, {"order": names})
    return Section("correlations", title, (text,), (plot,))


def _pairs(names: Sequence[str], values_NS: np.ndarray) -> list[dict[str, Any]]:
    """Every pair of signals: their correlation, and over how many rows."""
    from scipy.stats import rankdata

    found = []
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            both_N = np.isfinite(values_NS[:, i]) & np.isfinite(values_NS[:, j])
            value = _pearson(rankdata(values_NS[both_N, i]), rankdata(values_NS[both_N, j]))
            found.append({"signal": one, "other": other, "value": value, "rows": int(both_N.sum())})
    return found


def _pearson(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """The correlation, to three digits; None where one does not vary."""
    if len(x_N) < 3 or x_N.std() == 0 or y_N.std() == 0:
        return None
    return round(float(np.corrcoef(x_N, y_N)[0, 1]), 3) + 0.0
