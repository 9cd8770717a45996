"""Which of several lettered options a model's words name."""

import re
from collections.abc import Mapping

_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))  # VLMEvalKit's, which leave a letter alone
_MORE_MARKS = str.maketrans(dict.fromkeys('.()[],:;!?*#{}"“”`', " "))
_AFTER_A_LETTER = ("and", "or", "is", "as", "because", "since", "seems", "would", "appears")


def stated_letters(text: str, letters: str) -> list[str]:
    """Letters of options that stand alone in a text, in order; an "A" that is an article is none.

    It is one where the next word follows after a space alone and in lower case, and is no verb of the letter itself.
    """
    words = text.translate(_MORE_MARKS).split()
    found = []
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        article = word == "A" and after[:1].islower() and after not in _AFTER_A_LETTER and f"A {after}" in text
        if len(word) == 1 and word in letters and not article:
            found.append(word)
    return found


def inferred(text: str, options: Mapping[str, str], *, official: bool) -> str:
    """The letter that a text names alone, or that of the only option whose words it holds; "" where neither is so.

    `official`: as VLMEvalKit, an article counts as the letter A, and an option's text counts within a word.
    """
    if official:
        named = {word for word in text.translate(_MARKS).split() if word in options}
        held = [letter for letter, option in options.items() if option.lower() in text.lower()]
    else:
        named = set(stated_letters(text, "".join(options)))
        held = [letter for letter, option in options.items() if _holds(text, option)]
    found = named if len(named) == 1 else held
    return next(iter(found)) if len(found) == 1 else ""


def _holds(text: str, option: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(option.strip())}(?!\w)", text, re.IGNORECASE) is not None
