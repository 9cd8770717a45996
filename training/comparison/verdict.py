"""Which of several data sets is better: means over seeds, paired differences, and sentences. Numbers in, words out.

Trainings of one seed begin with the same weights, so differences are taken seed by seed. Intervals are Student's t over
seeds, each for itself. A set is called better where the paired t-test still says so after Holm's correction (1979) over
all pairs of sets and all metrics that are judged: that one of these is named wrongly has a chance of 5 % at most.
"""

import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from schemas.errors import InputError
from schemas.nearest import unknown_name

CONFIDENCE = 0.95
_ROUNDING = 1e-12  # of scores as floats, relative
_SECONDARY = (  # beside top1, recall@1 and CIDEr
    ".mean_per_class_recall", ".top5", "_recall@5", "_recall@10",
    ".Bleu_1", ".Bleu_2", ".Bleu_3", ".Bleu_4", ".ROUGE_L",
)  # fmt: skip
_SMALLER = {"loss", "error", "perplexity", "fid", "wer", "cer", "rmse", "mae", "seconds"}  # last words of such names
Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""By set and metric, the values of all seeds in one order. More is better, but for what `is_less_better` names."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the ends of its interval, which one seed does not have."""

    mean: float
    low: float | None
    high: float | None

    def turned(self) -> "Estimate":
        """Of the difference the other way round."""
        ends = (None, None) if self.low is None or self.high is None else (-self.high, -self.low)
        return Estimate(-self.mean, *ends)


@dataclass(frozen=True)
class Difference:
    """By how much `other` exceeds `first` in a metric; `p` of the paired t-test, `p_holm` with Holm's correction."""

    metric: str
    first: str
    other: str
    estimate: Estimate
    p: float | None
    p_holm: float | None

    @property
    def better(self) -> str | None:
        """The set that is better; None where it cannot be told."""
        if self.p_holm is None or self.p_holm > 1 - CONFIDENCE:
            return None
        return self.other if (self.estimate.mean > 0) != is_less_better(self.metric) else self.first

    def record(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return asdict(self) | {"better": self.better}


@dataclass(frozen=True)
class Verdict:
    """Means by set and metric, the differences of all pairs of sets (those to the first come first), and sentences."""

    seeds: int
    means: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]
    sentences: tuple[str, ...]


def judge(scores: Scores, metrics: Sequence[str] = ()) -> Verdict:
    """The verdict over two sets or more, by the metrics that are named; by default all but the secondary ones.

    Those say nearly the same as others, and each metric more makes the correction stricter for all. Raises InputError
    for a metric that was not measured.
    """
    measured = list(next(iter(scores.values())))
    require_metrics(metrics, measured)
    judged = list(dict.fromkeys(metrics)) or [m for m in measured if not m.endswith(_SECONDARY)] or measured
    pairs = list(itertools.combinations(scores, 2))
    found = [_difference(m, a, b, scores[a][m], scores[b][m]) for a, b in pairs for m in judged]
    corrected = holm([p for _, p in found if p is not None])
    differences = tuple(
        Difference(*named, p, corrected[place] if corrected else None) for place, (named, p) in enumerate(found)
    )
    means = {name: {metric: interval(values) for metric, values in of.items()} for name, of in scores.items()}
    seeds = len(scores[pairs[0][0]][measured[0]])
    told = tuple(_sentence(a, b, [d for d in differences if (d.first, d.other) == (a, b)], seeds) for a, b in pairs)
    return Verdict(seeds, means, differences, told)


def is_less_better(metric: str) -> bool:
    """Whether a metric, which a user's own command may have named, is one of those that are better when smaller."""
    return re.split("[^a-z]+", metric.lower().rstrip("0123456789@_-."))[-1] in _SMALLER


def require_metrics(asked: Sequence[str], measured: Sequence[str]) -> None:
    """Raise InputError for a metric that was not measured."""
    for metric in asked:
        if metric not in measured:
            raise InputError(f"--metric {metric}: {unknown_name(metric, measured, 'measured are')}")


def interval(values: Sequence[float]) -> Estimate:
    """The mean and its two-sided interval by Student's t with one degree of freedom less than there are values."""
    from scipy.stats import t

    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, None, None)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def p_value(differences: Sequence[float], noise: float = 0.0) -> float | None:
    """Two-sided p of a paired t-test; None of one seed.

    Differences that are all alike, as coarse metrics have them, have no spread to be held against: there it is the sign
    test's, the chance that so many signs agree. A spread or a mean up to `noise` is taken for none.
    """
    from scipy.stats import t

    if len(differences) == 1:
        return None
    mean, spread = math.fsum(differences) / len(differences), statistics.stdev(differences)
    if spread <= noise:
        return 1.0 if abs(mean) <= noise else 2.0 ** (1 - len(differences))
    return float(2 * t.sf(abs(mean) / spread * math.sqrt(len(differences)), len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p after Holm's step-down correction for how many there are."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = worst
    return corrected


def _difference(
    metric: str, first: str, other: str, of_first: Sequence[float], of_other: Sequence[float]
) -> tuple[tuple[str, str, str, Estimate], float | None]:
    apart = [b - a for a, b in zip(of_first, of_other, strict=True)]
    noise = _ROUNDING * max(abs(value) for value in (*of_first, *of_other))  # 0.4 - 0.3 is not 0.2 - 0.1
    return (metric, first, other, interval(apart)), p_value(apart, noise)


def _sentence(first: str, other: str, found: Sequence[Difference], seeds: int) -> str:
    """Which of two sets is better, by which metric, or that it cannot be told."""
    if seeds == 1:
        apart = ", ".join(f"{d.metric} {d.estimate.mean:+.4f}" for d in found)
        return (
            f"Whether {other} or {first} is better cannot be told: one seed gives no interval "
            f"(seen once, {other} against {first}: {apart})."
        )
    said = []
    for winner, loser in ((other, first), (first, other)):
        by = [_told(d, winner) for d in found if d.better == winner]
        said += [f"{winner} is better than {loser} by {_listed(by)}"] if by else []
    undecided = [_told(d, other) for d in found if d.better is None]
    if undecided:
        said.append(f"whether {other} or {first} is better cannot be told by {_listed(undecided)}")
    text = "; ".join(said) + "."
    return text if len(undecided) < len(found) else text[0].upper() + text[1:]


def _told(difference: Difference, whose: str) -> str:
    """A metric with how much more of it that set has, and the interval."""
    found = difference.estimate if whose == difference.other else difference.estimate.turned()
    return f"{difference.metric} ({found.mean:+.4f}, {found.low:+.4f} to {found.high:+.4f})"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
