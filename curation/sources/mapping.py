"""How the columns of a source become ours: `columns: {ours: theirs}`; what is not named there keeps its name."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from curation.sources.suggestion import did_you_mean
from schemas import columns as c
from schemas.errors import SourceError

DEFAULT = {"url": "url", "caption": "caption"}
RESERVED = tuple(column.name for column in (c.KEY, c.FATE, c.FATE_STEP, c.FATE_REASON, c.DUPLICATE_OF))


@dataclass(frozen=True)
class Assignment:
    """Which of their columns becomes the URL and the caption (None: there is none), and the others by our name."""

    url: str | None
    caption: str | None
    extra: Mapping[str, str]


def assign(names: Iterable[str], columns: Mapping[str, str], where: str, lenient: bool = False) -> Assignment:
    """Map the columns that a source has. Raises SourceError where a name is missing, taken twice or reserved.

    Without a mapping, `url` and `caption` must be there. A `lenient` source may lack both, and its reserved names are
    written with `source_` before them: who made the files did not know ours.
    """
    names = list(names)
    refuse_equal(names, where)
    asked = dict(columns or DEFAULT)
    if lenient:
        asked = {ours: theirs for ours, theirs in asked.items() if theirs in names or DEFAULT.get(ours) != theirs}
    for ours, theirs in asked.items():
        if theirs not in names:
            raise SourceError(_missing(ours, theirs, names, where))
    for name in names:
        if name not in asked.values():
            ours = f"source_{name}" if lenient and name.casefold() in RESERVED else name
            if _taken(ours, asked):
                raise SourceError(
                    f"{where}: column {name!r} would stand beside {ours!r}, which is mapped from "
                    f"{asked[_taken(ours, asked)]!r}; give it another name, columns: {{source_{name}: {name}}}"
                )
            asked[ours] = name
    extra = {ours: theirs for ours, theirs in sorted(asked.items()) if ours not in DEFAULT}
    _refuse_reserved(extra, where)
    return Assignment(asked.get("url"), asked.get("caption"), extra)


def _taken(name: str, asked: Mapping[str, str]) -> str:
    return next((ours for ours in asked if ours.casefold() == name.casefold()), "")


def refuse_equal(names: list[str], where: str) -> None:
    """Raise SourceError where two columns of a source differ by case only: SQL cannot tell them apart."""
    counts = Counter(name.casefold() for name in names)
    for name in names:
        if counts[name.casefold()] > 1:
            same = ", ".join(repr(other) for other in names if other.casefold() == name.casefold())
            raise SourceError(
                f"{where}: has columns that differ by case only or not at all: {same}; rename them in the source"
            )


def _missing(ours: str, theirs: str, names: list[str], where: str) -> str:
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    hint = did_you_mean(theirs, names)
    return f"{where}: has no column {theirs!r} to become {ours!r}; it has: {shown}{hint} (columns: {{ours: theirs}})"


def _refuse_reserved(extra: Mapping[str, str], where: str) -> None:
    for ours, theirs in extra.items():
        if ours.casefold() in RESERVED:
            raise SourceError(
                f"{where}: column {theirs!r} cannot ride along as {ours!r}, a name that every curated set gives to "
                f"something else; give it another name, columns: {{source_{theirs}: {theirs}}}"
            )
