"""From judged answers to scores: means, means of groups, intervals, and counts of answers that could not be read.

Sums are exact (math.fsum), so that the order of a file changes no bit.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluate.zeroshot import Scores

_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True)
class Judged:
    """One question's score, the groups it belongs to by kind (one or several), and whether its answer was read."""

    score: float
    groups: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    parsed: bool = True


def tally(judged: Sequence[Judged], metric: str, *, mean_of: str | None = None) -> Scores:
    """The mean score as `metric` with its 95 % interval, the same per group, and counts.

    `mean_of` names the kind of group whose means are averaged, as where a benchmark is the mean of its tasks.
    """
    strata = [[one.score for one in judged]]
    if mean_of is not None:
        strata = list(_by_group(judged, mean_of).values())
    low, high = interval(strata)
    metrics = {
        metric: mean([mean(stratum) for stratum in strata]),
        f"{metric}_low": low,
        f"{metric}_high": high,
        "questions": len(judged),
        "unparsed": sum(not one.parsed for one in judged),
    }
    kinds = list(dict.fromkeys(kind for one in judged for kind in one.groups))
    groups = {
        kind: {name: {metric: mean(found), "questions": len(found)} for name, found in _by_group(judged, kind).items()}
        for kind in kinds
    }
    return Scores(metrics, groups=groups)


def mean(scores: Sequence[float]) -> float:
    """The mean, by an exact sum."""
    return math.fsum(scores) / len(scores)


def interval(strata: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval of the mean of the strata's means (percentiles; Efron 1979).

    Questions are drawn again within each stratum. Those about one picture count as independent.
    """
    draws = np.random.default_rng(_SEED)
    means_R = np.zeros(_RESAMPLES)
    for scores in strata:
        scores_N = np.sort(scores)  # so that the order of a file changes no draw
        for place in range(_RESAMPLES):
            drawn_N = draws.integers(len(scores_N), size=len(scores_N), dtype=np.int32)
            means_R[place] += scores_N[drawn_N].mean() / len(strata)
    low, high = np.percentile(means_R, (2.5, 97.5))
    return float(low), float(high)


def _by_group(judged: Sequence[Judged], kind: str) -> dict[str, list[float]]:
    """Scores of each group of a kind, sorted by name."""
    found = defaultdict(list)
    for one in judged:
        names = one.groups.get(kind, ())
        for name in (names,) if isinstance(names, str) else names:
            found[name].append(one.score)
    return {name: found[name] for name in sorted(found)}
