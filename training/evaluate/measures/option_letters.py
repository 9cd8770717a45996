"""Which of several lettered options a model's words name."""

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
    """The letter that a text names alone, or that of the only option whose text it holds; "" where neither is so.

    `official`: as VLMEvalKit, an article counts as the letter A.
    """
    letters = "".join(options)
    if official:
        named = {word for word in text.translate(_MARKS).split() if word in options}
    else:
        named = set(stated_letters(text, letters))
    if len(named) == 1:
        return named.pop()
    held = [letter for letter, option in options.items() if option.lower() in text.lower()]
    return held[0] if len(held) == 1 else ""
