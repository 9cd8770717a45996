"""A judgement as a model gives it: a score on a scale, and why. Asked for as JSON, read with patience."""

import json
import math
import re
from typing import Any, NamedTuple

from curation.operator import Failure

_SAID = re.compile(r"""\bscore\b["'*\s]*(?::|=|is)["'*\s]*(-?\d+(?:\.\d+)?)(?!\w|\.\d)""", re.IGNORECASE)
_OF = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)\s*(?:/|out of)\s*(\d+(?:\.\d+)?)(?!\w|\.\d)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w|\.\d)")
_MOST_SHOWN = 200


class Judgement(NamedTuple):
    """A score on the scale, and why; None where the model does not say."""

    score: float
    reason: str | None


def request_for(lowest: float, highest: float) -> str:
    """The words that ask for a judgement as JSON."""
    return (
        f"Give a score from {lowest:g} (worst) to {highest:g} (best). Answer with one JSON object and nothing else: "
        '{"reason": "<one sentence>", "score": <number>}'
    )


def judgement_schema() -> dict[str, Any]:
    """JSON Schema of a judgement: first the reason, so that the score follows from it."""
    properties = {"reason": {"type": "string"}, "score": {"type": "number"}}
    return {
        "type": "object",
        "properties": properties,
        "required": ["reason", "score"],
        "additionalProperties": False,
    }


def judgement_in(text: str, lowest: float, highest: float) -> Judgement | Failure:
    """The judgement that an answer holds: JSON, `score: 4`, `4/5`, or the only number that it names."""
    found = _from_json(text)
    if found is None:
        score = _from_words(text, highest)
        found = None if score is None else Judgement(score, text.strip())
    if found is None:
        return Failure("unparsable", f"the answer holds no score, or several: {text.strip()[:_MOST_SHOWN]}")
    if not lowest <= found.score <= highest:
        return Failure("out_of_scale", f"the score {found.score:g} lies outside of {lowest:g} to {highest:g}")
    return found


def _from_json(text: str) -> Judgement | None:
    """The first JSON object with a score that stands anywhere in a text."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        score = _number(value.get("score")) if isinstance(value, dict) else None
        if score is not None:
            reason = value.get("reason")
            return Judgement(score, reason.strip() or None if isinstance(reason, str) else None)
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _from_words(text: str, highest: float) -> float | None:
    """`score: 4`, else `4/5` or `4 out of 5` on our own scale, else the only number; None where it is not clear."""
    for found in (
        set(_SAID.findall(text)),
        {score for score, most in _OF.findall(text) if float(most) == highest},
        set(_NUMBER.findall(text)),
    ):
        if len(found) == 1:
            return float(found.pop())
        if found:
            return None
    return None
