"""YAML → specification, or an error that names the file, the line, what is wrong and what is allowed."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from schemas.errors import SpecError
from schemas.nearest import unknown_name
from schemas.overrides import apply_override, spelled
from schemas.yaml_text import Place, Text, parse

Model = TypeVar("Model", bound=BaseModel)

_MOST_BYTES = 1 << 20
_LEADING_PLACE = re.compile(r"([a-z_]+)(?:\[(\d+)\])?(?: \w+)?:")
_SENTENCES = {
    "missing": "is missing; it must be given",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "model_type": "must be a mapping of names to values",
    "model_attributes_type": "must be a mapping of names to values",
    "dict_type": "must be a mapping of names to values",
    "mapping_type": "must be a mapping of names to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "value_error": "{error}",
}


@dataclass(frozen=True)
class Read(Generic[Model]):
    """A specification and where its pieces stand."""

    spec: Model
    path: Path
    places: Mapping[Place, str] = field(default_factory=dict)

    def where(self, *place: str | int) -> str:
        """`file:line` of a piece, or of the nearest piece around it; `--set …` where it came from the command line."""
        return _where(self.places, place)

    def located(self, message: str) -> str:
        """A message that begins with a place (`steps[3] keep: …`, `shards: …`), with `file:line: ` before it."""
        place = _leading_place(message)
        return f"{self.where(*place) if place and place[:1] in self.places else self.path}: {message}"


def read_yaml(
    path: Path | str,
    model: type[Model],
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Read[Model]:
    """The specification in a file, `${VAR}` replaced and overrides (`a.b[1].c=value`) applied. Raises SpecError.

    Relative paths in a specification are relative to the working directory, and stay as they are written.
    """
    path = Path(path)
    text = parse(_content(path), lambda line: f"{path}:{line}", os.environ if environment is None else environment)
    if text.value is None:
        raise SpecError(f"{path}: is empty; `pairmill check --schema` says what a specification holds")
    if not isinstance(text.value, dict):
        kind = "list" if isinstance(text.value, list) else f"value: {str(text.value)[:80]!r}"
        raise SpecError(f"{text.places[()]}: a specification is a mapping of names to values, this is a {kind}")
    for override in overrides:
        apply_override(text, override, partial(_fields_at, model))
    try:
        return Read(model.model_validate(text.value), path, text.places)
    except ValidationError as error:
        raise SpecError("\n".join(explained(error, model, text))) from error


def explained(error: ValidationError, model: type[BaseModel], text: Text) -> list[str]:
    """One sentence for each thing that is wrong, with the place of the nearest piece of the file."""
    sentences: dict[str, None] = {}
    for detail in error.errors():
        place = _place_of(detail["loc"], model, text.value)
        said = sentence_of(detail, _fields_at(model, place[:-1]) or [])
        if place:
            said = f"{spelled(place)}: {said}"
        sentences[f"{_where(text.places, place or _leading_place(said))}: {said}"] = None
    return list(sentences)


def sentence_of(detail: Any, allowed: Sequence[str]) -> str:
    """What pydantic found wrong, as a sentence; `allowed` are the names that could stand there."""
    if detail["type"] == "extra_forbidden":
        return unknown_name(str(detail["loc"][-1]), allowed)
    sentence = _SENTENCES.get(detail["type"], "{msg}").format(msg=detail["msg"], **detail.get("ctx", {}))
    given = detail.get("input")
    shown = given is not None and not isinstance(given, (dict, list, tuple)) and detail["type"] != "missing"
    return f"{sentence} (here: {given!r})" if shown else sentence


def _content(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SpecError(f"{path}: there is no such file{hint}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder; name the YAML file in it") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > _MOST_BYTES:
        raise SpecError(f"{path}: has more than {_MOST_BYTES:,} bytes; is it a specification?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start}); is it a specification?") from error


def _place_of(loc: Sequence[str | int], model: type[BaseModel], value: Any) -> Place:
    """The place in the file that pydantic means; it mixes names of its own (`function-before[…]`) into it."""
    place: list[str | int] = []
    for i, piece in enumerate(loc):
        in_list = isinstance(value, list) and isinstance(piece, int) and piece < len(value)
        if in_list or (isinstance(value, dict) and piece in value):
            value = value[piece]
        elif i < len(loc) - 1 or piece not in (_fields_at(model, place) or []):
            continue
        place.append(piece)
    return tuple(place)


def _leading_place(message: str) -> Place:
    """The place with which a message begins, such as `steps[3] keep: …`."""
    found = _LEADING_PLACE.match(message)
    if found is None:
        return ()
    return (found[1],) if found[2] is None else (found[1], int(found[2]))


def _fields_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str] | None:
    """The names that may stand at a place of the model, as people write them; None where they are free."""
    current: Any = model
    free_name = False  # in a mapping whose names the user chooses
    for piece in place:
        if isinstance(piece, int):
            continue
        info = getattr(current, "model_fields", {}).get(piece)
        if free_name:
            free_name = False
        elif info is not None:
            current, free_name = _model_of(info.annotation), _is_mapping(info.annotation)
        else:
            return []
    fields = getattr(current, "model_fields", {})
    return None if free_name else sorted(info.alias or name for name, info in fields.items())


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_is_mapping(argument) for argument in get_args(annotation))
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_of(argument) for argument in get_args(annotation)]
    return next((model for model in found if model is not None), None)


def _where(places: Mapping[Place, str], place: Sequence[str | int]) -> str:
    if tuple(place) not in places:  # a step's id stands beside its parameters, or among them
        around, last = tuple(place[:-1]), place[-1:]
        among = [known for known in places if known[:-2] == around and known[-1:] == tuple(last) and len(known) > 1]
        if len(among) == 1:
            return places[among[0]]
    for length in range(len(place), 0, -1):
        if tuple(place[:length]) in places:
            return places[tuple(place[:length])]
    return places.get((), "the specification")
