"""What a misspelt name was perhaps meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known name is near; case does not count."""
    by_case = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), list(by_case), 1)
    return f"; did you mean {by_case[near[0]]!r}?" if near else ""
