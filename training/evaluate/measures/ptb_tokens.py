"""Captions as words, as the Penn Treebank splits them: what COCO's scores count, without Java.

A subset of Stanford's PTBTokenizer (3.4.1) as coco-caption calls it: in lower case, marks of punctuation dropped. What
it does with text beyond captions (addresses, smileys, XML) is left out; a slash or star is not escaped here, which
changes no score, as both sides are split alike. Brackets stay, as the words "-lrb-" and "-rrb-": the list of marks has
them in upper case, which was lost before it is asked.
"""

import re

_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\n": " ", "–": "--", "—": "--", "…": "..."})
_ABBREVIATED = (
    "mr|mrs|ms|dr|prof|rev|gen|sen|rep|gov|capt|lt|sgt|col|st|ave|blvd|rd|jr|sr|vs|etc|inc|corp|co|ltd|no|dept|est|mt|"
    "jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
_SPLIT_IN_TWO = {
    "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me", "lemme": "lem me",
}  # fmt: skip
_CLITIC = re.compile(r"(?P<word>.+?)(?P<clitic>n't|'(?:s|m|d|re|ve|ll))$")
_WORD = re.compile(
    r"""
      (?:[a-z]\.){2,}                                 # u.s., p.m.
    | (?:{abbreviated})\.(?=\s+\S)                               # mr. where something follows
    | [$£€¥]
    | \d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?![\w'-])   # 3.5, 1,000, 5:30, 1/2, 3rd, 1960s
    | \.\d+
    | o'clock | '(?:em|til|tis|twas|n)(?!\w)
    | '\d0s
    | \w+(?:[-&'/.@]\w+)*                             # t-shirt, can't, and/or, site.com
    | '(?:s|m|d|re|ve|ll)(?!\w)                       # after a mark or a bracket
    | \.{2,} | -{2,} | ''|``
    | \S
    """.replace("{abbreviated}", _ABBREVIATED),
    re.VERBOSE,
)


def ptb_tokens(caption: str) -> list[str]:
    """The words of a caption."""
    found = _WORD.findall(caption.translate(_QUOTES).lower())
    pieces = [piece for word in found for piece in _pieces(word)]
    return [_BRACKETS.get(piece, piece) for piece in pieces if piece not in _DROPPED and piece != '"']


def _pieces(word: str) -> list[str]:
    """A word without what hangs on it: can't is ca and n't."""
    if word in _SPLIT_IN_TWO:
        return _SPLIT_IN_TWO[word].split()
    if set(word) == {"."}:
        return ["..."] if len(word) > 2 else ["."]
    if set(word) == {"-"}:
        return ["--"]
    parted = _CLITIC.match(word)
    return [*_pieces(parted["word"]), parted["clitic"]] if parted else [word]
