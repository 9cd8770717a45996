"""What MMMU's evaluation reads from a model's words: the letter of an option, or the numbers and texts of an answer.

The rules are those of its script. It lowers the case of an open answer before it splits sentences at a period that a
capital follows, so that only line breaks split; that stays.
"""

import re
from collections.abc import Mapping, Sequence

Part = str | float
_ENDS = (",", ".", "!", "?", ";", ":", "'")
_MORE_WORDS_THAN = 5
_BEFORE_THE_ANSWER = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def chosen_letter(text: str, options: Mapping[str, str]) -> str:
    """The letter of an option: in brackets, or alone, or by its text in a longer answer; the last; "" for none."""
    for mark in _ENDS:
        text = text.strip(mark)
    text = f" {text} "
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in options}
        if max(places.values()) >= 0:
            return max(places, key=lambda letter: places[letter])
    if len(text.split()) <= _MORE_WORDS_THAN:
        return ""
    places = {letter: text.lower().rfind(option.lower()) for letter, option in options.items()}
    return max(places, key=lambda letter: places[letter]) if max(places.values()) >= 0 else ""


def open_answer_is_right(text: str, right: Sequence[str]) -> bool:
    """Whether a right number is among those of an answer, or a right text within one of its texts."""
    wanted = [part for one in right for part in _normal(one)]
    return any(_matches(part, wanted) for said in _said(text) for part in _normal(said))


def _matches(part: Part, wanted: Sequence[Part]) -> bool:
    if isinstance(part, float):
        return part in wanted
    return any(isinstance(one, str) and one in part for one in wanted)


def _said(text: str) -> list[str]:
    """The ends of lines after words that lead to an answer, or the whole, and all numbers in them."""
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    ends = []
    for place, line in enumerate(lines):
        leads = (*_BEFORE_THE_ANSWER, "=") if place == len(lines) - 1 else _BEFORE_THE_ANSWER
        tails = [line.split(lead)[-1].strip() for lead in leads if lead in line]
        shortest = min(tails, key=len, default="")
        if shortest and shortest not in _ENDS:
            ends.append(shortest)
    ends = ends or [text]
    return ends + [number for end in ends for pattern in _NUMBERS for number in pattern.findall(end)]


def _normal(text: str) -> list[Part]:
    """A number to two places, or a text in lower case, a letter only where it stands at the edge of a word."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
