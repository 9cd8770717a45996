"""What to say of a name that is not known."""

import difflib
from collections.abc import Sequence


def unknown_name(name: str, known: Sequence[str], there_are: str = "allowed") -> str:
    """`there is no 'rowz'; did you mean 'rows'? allowed: caption, rows`."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no {name!r}; {hint}{there_are}: {', '.join(sorted(known)) or 'nothing'}"
