"""CIDEr-D: how alike captions are in the runs of words that are rare over all pictures (Vedantam et al. 2015).

With the words' numbers as in coco-caption, down to its length, which counts pairs of words instead of words.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Tokens = Sequence[str]
Run = tuple[str, ...]
_LONGEST = 4
_SIGMA = 6.0


@dataclass(frozen=True)
class _Vector:
    """Weights of a caption's runs by length, their norms, and how many pairs of words it has."""

    weights: tuple[dict[Run, float], ...]
    norms: tuple[float, ...]
    pairs: int


def cider_d(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Each picture's score, from 0 to 10, of one caption against its references; all pictures weigh in the words.

    Of one picture alone every word is in all pictures, and the score is 0.
    """
    seen: Counter[Run] = Counter()
    for texts in references:
        seen.update({run for text in texts for runs in _runs(text) for run in runs})
    most = math.log(len(references))
    rarity = {run: most - math.log(times) for run, times in seen.items()}
    scores = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        said = _vector(hypothesis, rarity, most)
        alike = [value for text in texts for value in _likeness(said, _vector(text, rarity, most))]
        scores.append(10 * math.fsum(alike) / (_LONGEST * len(texts)))
    return scores


def _runs(text: Tokens) -> list[Counter[Run]]:
    """Runs of 1 to 4 words, and how often each stands there."""
    return [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, _LONGEST + 1)]


def _vector(text: Tokens, rarity: Mapping[Run, float], most: float) -> _Vector:
    """Weights by how often a run stands in the caption and how rare it is, `most` for one that no reference has."""
    runs = _runs(text)
    weights = tuple({run: times * rarity.get(run, most) for run, times in of.items()} for of in runs)
    norms = tuple(math.sqrt(math.fsum(weight**2 for weight in of.values())) for of in weights)
    return _Vector(weights, norms, sum(runs[1].values()))


def _likeness(said: _Vector, right: _Vector) -> list[float]:
    """Cosines of clipped weights by length of run, less where the lengths of the captions differ."""
    penalty = math.exp(-((said.pairs - right.pairs) ** 2) / (2 * _SIGMA**2))
    found = []
    for n in range(_LONGEST):
        norm = said.norms[n] * right.norms[n]
        weights = right.weights[n]
        shared = math.fsum(min(w, weights[run]) * weights[run] for run, w in said.weights[n].items() if run in weights)
        found.append(penalty * shared / norm if norm else 0.0)
    return found
