"""`--set steps[3].dedup.within=2`: values from the command line over those of a file.

A first name that is the id of a step stands for the parameters of that step: `--set near_dup.within=2`.
"""

import re
from collections.abc import Callable
from typing import Any

from schemas.errors import SpecError
from schemas.nearest import unknown_name
from schemas.yaml_text import Place, Text, parse

Fields = Callable[[Place], list[str] | None]  # the names that may stand at a place; None where they are free

BESIDE_STEP = ("id", "as", "reads")
_PIECE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)((?:\[\d+\])*)\Z")


def apply_override(root: Text, override: str, fields: Fields) -> None:
    """Change what a file says; `fields` knows what may stand where. Raises SpecError."""
    name, equals, text = override.partition("=")
    called = f"--set {override}"
    if not equals:
        raise SpecError(f"{called}: write it as name=value, for example shards.rows=1000")
    place = _place(name, called)
    if place[0] not in root.value and place[0] not in (fields(()) or []):
        step = _step_place(root.value, str(place[0]), called, fields)
        _refuse_name_of_step(root.value, step, name.strip().split("."), called)
        place = step + place[1:]
    given = parse(text, lambda _: called, {})
    _put(root.value, place, given.value, called, fields)
    for old in [known for known in root.places if known[: len(place)] == place]:
        del root.places[old]
    root.places |= {(*place, *inner): called for inner in given.places} | {place: called}


def _refuse_name_of_step(root: Any, place: Place, pieces: list[str], called: str) -> None:
    """An id stands for the parameters already: bests.rows, not bests.top.rows."""
    number, step = place[1:]
    parameters = root["steps"][number][step]
    if pieces[1:2] == [step] and not (isinstance(parameters, dict) and step in parameters):
        short = ".".join([pieces[0], *pieces[2:]])
        what = "<SQL>" if step == "keep" else "…"
        raise SpecError(f"{called}: {pieces[0]!r} stands for what is said of {step}; write --set {short}={what}")


def spelled(place: Place) -> str:
    """A place as people write it: steps[3].dedup.within."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".")


def _put(root: Any, place: Place, value: Any, called: str, fields: Fields) -> None:
    current = root
    for depth, piece in enumerate(place[:-1]):
        current = _inside(current, piece, place[depth + 1], called, place[:depth], fields)
    last = place[-1]
    if isinstance(current, dict) and isinstance(last, str):
        current[last] = value  # whether the name may stand there, the model says
    elif isinstance(current, list) and isinstance(last, int) and last < len(current):
        current[last] = value
    else:
        raise SpecError(f"{called}: {_lacks(current, last, place[:-1])}")


def _inside(value: Any, piece: str | int, after: str | int, called: str, place: Place, fields: Fields) -> Any:
    """What stands at `piece`; what may be left out in a file (a section, a step's parameters) is made."""
    if isinstance(value, list) and isinstance(piece, int) and piece < len(value):
        if value[piece] == after:  # a step without parameters
            value[piece] = {after: {}}
        return value[piece]
    if isinstance(value, dict) and isinstance(piece, str):
        if (
            value.get(piece) is None
            and isinstance(after, str)
            and (piece in value or piece in (fields(place) or [piece]))
        ):
            value[piece] = {}
        if piece in value:
            return value[piece]
    raise SpecError(f"{called}: {_lacks(value, piece, place)}")


def _lacks(value: Any, piece: str | int, place: Place) -> str:
    where = spelled(place) or "the specification"
    if isinstance(value, list):
        entries = f"{len(value)} entries, from [0] to [{len(value) - 1}]" if value else "no entries"
        return f"{where} has {entries}; there is no {spelled((piece,))}"
    if isinstance(value, dict):
        return f"{where} has no {spelled((piece,))}; it has: {', '.join(value) or 'nothing'}"
    return f"{where} is {value!r}, which has no names in it; write --set {where}=…"


def _place(name: str, called: str) -> Place:
    place: list[str | int] = []
    for piece in name.strip().split("."):
        found = _PIECE.match(piece)
        if not found:
            raise SpecError(f"{called}: {piece!r} is no name; write names with dots, as in steps[3].dedup.within")
        place.append(found[1])
        place += [int(number) for number in re.findall(r"\d+", found[2])]
    return tuple(place)


def _step_place(root: dict[str, Any], identity: str, called: str, fields: Fields) -> Place:
    """Where the parameters of the step with that id stand."""
    ids: list[str] = []
    for number, step in enumerate(root.get("steps") or []):
        if not isinstance(step, dict):
            continue
        for name, value in step.items():
            own = [step.get("id"), value.get("id") if isinstance(value, dict) else None]
            if name not in BESIDE_STEP and identity in own:
                return ("steps", number, name)
            ids += [i for i in own if isinstance(i, str) and i not in ids]
    raise SpecError(f"{called}: {unknown_name(identity, [*(fields(()) or []), *ids], 'there are')}")
