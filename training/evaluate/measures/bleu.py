"""BLEU: which share of a caption's runs of words a reference has, over all captions at once (Papineni et al. 2002)."""

import math
from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[str]
_LONGEST = 4
_TINY, _SMALL = 1e-15, 1e-9  # as coco-caption keeps zero out of logarithms and divisions


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, from 0 to 1; of several references the one nearest in length counts."""
    right, made = [0] * _LONGEST, [0] * _LONGEST
    said_words = right_words = 0
    for said, texts in zip(hypotheses, references, strict=True):
        said_words += len(said)
        right_words += min((abs(len(text) - len(said)), len(text)) for text in texts)[1]
        for n in range(_LONGEST):
            runs = _runs(said, n + 1)
            most: Counter[tuple[str, ...]] = Counter()
            for text in texts:
                most |= _runs(text, n + 1)
            right[n] += sum((runs & most).values())
            made[n] += max(0, len(said) - n)
    ratio = (said_words + _TINY) / (right_words + _SMALL)
    short = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    shares = [(right[n] + _TINY) / (made[n] + _SMALL) for n in range(_LONGEST)]
    return [short * math.prod(shares[: n + 1]) ** (1 / (n + 1)) for n in range(_LONGEST)]


def _runs(text: Tokens, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
