"""VQA's normal form of a short answer, and its accuracy against ten people's answers (Antol et al. 2015).

The rules are those of the evaluation server's script; its lookbehind for a digit before a period is misspelt and never
holds, so that "3." becomes "3" and "1.5" stays.
"""

import functools
import re
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS)}
_ARTICLES = ("a", "an", "the")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock 'ow's'at oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _forms_without_an_apostrophe() -> dict[str, str]:
    found = {}
    for full in _CONTRACTED.split():
        for place in (place for place, letter in enumerate(full) if letter == "'"):
            found[full[:place] + full[place + 1 :]] = full
    return found


_CONTRACTIONS = _forms_without_an_apostrophe()


@functools.lru_cache(maxsize=1 << 16)
def normal(answer: str) -> str:
    """Without punctuation and articles, in lower case, numbers to ten as digits, contractions with apostrophes."""
    text = answer
    number = _COMMA_IN_NUMBER.search(answer) is not None
    for mark in _PUNCTUATION:
        touches = number or f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if touches else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def stripped(answer: str) -> str:
    """Line breaks and tabs as spaces, none at the ends."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(answer: str, people: Sequence[str], *, official: bool) -> float:
    """The mean over people of min(1, how many of the others agree with the answer / 3).

    `official`: where all people say the same, nothing is brought into normal form.
    """
    answer, people = stripped(answer), [stripped(one) for one in people]
    if not official or len(set(people)) > 1:
        answer, people = normal(answer), [normal(one) for one in people]
    agree = sum(one == answer for one in people)
    left_out = agree * min(3, agree - 1) + (len(people) - agree) * min(3, agree)
    return left_out / (3 * len(people))
