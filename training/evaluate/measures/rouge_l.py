"""ROUGE-L: the longest run of words in order, with gaps, that a caption has in common with a reference (Lin 2004)."""

from collections.abc import Sequence

Tokens = Sequence[str]
_BETA = 1.2


def rouge_l(said: Tokens, texts: Sequence[Tokens]) -> float:
    """F-measure, from 0 to 1, of the best precision and the best recall over the references, as in coco-caption."""
    common = [_longest_common(said, text) for text in texts]
    precision = max(common) / max(1, len(said))
    recall = max(words / max(1, len(text)) for words, text in zip(common, texts, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(a: Tokens, b: Tokens) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
