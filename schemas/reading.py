"""YAML → specification, or an error that names the file, the line, what is wrong and what is allowed."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import SpecError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]

_MOST_BYTES = 1 << 20
_MOST_DEPTH = 40
_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)((?:\[\d+\])*)\Z")


@dataclass(frozen=True)
class Read(Generic[Model]):
    """A specification and where its pieces stand in the file."""

    spec: Model
    path: Path
    lines: Mapping[Place, int] = field(default_factory=dict)

    def where(self, *place: str | int) -> str:
        """`file:line` of a piece, or of the nearest piece around it."""
        return f"{self.path}:{_line(self.lines, place)}"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with numbers as people write them: `1e-3` is a number too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def read_yaml(
    path: Path | str,
    model: type[Model],
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Read[Model]:
    """The specification in a file, `${VAR}` replaced and overrides (`a.b[1].c=value`) applied. Raises SpecError."""
    path = Path(path)
    node = _composed(path)
    lines: dict[Place, int] = {}
    value = _value(node, path, os.environ if environment is None else environment, lines, ())
    if not isinstance(value, dict):
        raise SpecError(f"{path}:1: a specification is a mapping of names to values, this is a {type(value).__name__}")
    for override in overrides:
        _override(value, override)
    try:
        return Read(model.model_validate(value), path, lines)
    except ValidationError as error:
        raise SpecError("\n".join(explained(error, model, path, lines))) from error


def explained(error: ValidationError, model: type[BaseModel], path: Path, lines: Mapping[Place, int]) -> list[str]:
    """One sentence for each thing that is wrong."""
    sentences: dict[str, None] = {}
    for detail in error.errors():
        place = tuple(
            piece for piece in detail["loc"] if not (isinstance(piece, str) and piece.startswith("function-"))
        )
        text = f"{path}:{_line(lines, place)}: {spelled(place) or 'specification'}: {_said(detail, model, place)}"
        sentences[text] = None
    return list(sentences)


def spelled(place: Sequence[str | int]) -> str:
    """A place as people write it: steps[3].dedup.within."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".")


def unknown_name(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not known: the nearest one, and what is allowed."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no {name!r}; {hint}allowed: {', '.join(sorted(known)) or 'nothing'}"


def _said(detail: Any, model: type[BaseModel], place: Place) -> str:
    if detail["type"] == "extra_forbidden":
        return unknown_name(str(place[-1]), _fields_at(model, place[:-1]))
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    return message if isinstance(given, (dict, list)) or detail["type"] == "missing" else f"{message} (it is {given!r})"


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """The field names that the model has at a place."""
    current: Any = model
    for piece in place:
        if isinstance(piece, int):
            continue
        info = getattr(current, "model_fields", {}).get(piece)
        current = _model_of(info.annotation) if info is not None else None
    return sorted(getattr(current, "model_fields", {}))


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in found if model is not None), None)


def _composed(path: Path) -> yaml.Node:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise SpecError(f"{path}: there is no such file{hint}") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise SpecError(f"{path}: has {len(data):,} bytes; a specification has at most {_MOST_BYTES:,}")
    try:
        node = yaml.compose(data.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start}); is it a specification?") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: is no YAML: {error}") from error
    if node is None:
        raise SpecError(f"{path}: is empty; `pairmill check --schema` says what a specification holds")
    return node


def _value(node: yaml.Node, path: Path, environment: Mapping[str, str], lines: dict[Place, int], place: Place) -> Any:
    """The value of a node, with its line noted. Mappings refuse a key that is there twice."""
    line = node.start_mark.line + 1
    lines[place] = line
    if len(place) > _MOST_DEPTH:
        raise SpecError(f"{path}:{line}: is nested deeper than {_MOST_DEPTH} levels")
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, path, environment, lines, (*place, i)) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, child in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise SpecError(f"{path}:{line}: a name must be plain text")
            if key in found:
                raise SpecError(f"{path}:{key_node.start_mark.line + 1}: {key!r} is there twice; keep one")
            found[key] = _value(child, path, environment, lines, (*place, key))
            lines[(*place, key)] = key_node.start_mark.line + 1
        return found
    if node.tag == "tag:yaml.org,2002:str":
        return _with_variables(node.value, path, line, environment)
    loader = _Loader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{path}:{line}: {node.value!r} cannot be read: {error}") from error
    finally:
        loader.dispose()


def _with_variables(text: str, path: Path, line: int, environment: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        if found[2] not in environment:
            raise SpecError(
                f"{path}:{line}: ${{{found[2]}}}: the environment has no {found[2]}; set it, or write $${{…}}"
            )
        return environment[found[2]]

    return _VARIABLE.sub(value, text)


def _override(root: dict[str, Any], override: str) -> None:
    """Apply `--set steps[3].dedup.within=2`; a first name that is a step's id stands for that step."""
    name, equals, text = override.partition("=")
    if not equals:
        raise SpecError(f"--set {override}: write it as name=value, for example shards.rows=1000")
    place = _place(name)
    if isinstance(place[0], str) and place[0] not in root:
        place = _step_place(root, str(place[0])) + place[1:]
    current: Any = root
    for depth, piece in enumerate(place[:-1]):
        current = _inside(current, piece, override, place[:depth])
        if current is None:
            raise SpecError(f"--set {override}: {spelled(place[: depth + 1])} is empty; give it whole")
    last = place[-1]
    if isinstance(current, list):
        _inside(current, last, override, place[:-1])
    elif not isinstance(current, dict):
        raise SpecError(f"--set {override}: {spelled(place[:-1])} is {current!r} and holds no names")
    current[last] = yaml.load(text, Loader=_Loader)


def _place(name: str) -> Place:
    place: list[str | int] = []
    for piece in name.strip().split("."):
        found = _STEP.match(piece)
        if not found:
            raise SpecError(f"--set {name}: {piece!r} is no name; write names with dots, as in steps[3].dedup.within")
        place.append(found[1])
        place += [int(number) for number in re.findall(r"\d+", found[2])]
    return tuple(place)


def _step_place(root: dict[str, Any], identity: str) -> Place:
    """Where the parameters of the step with that id stand."""
    ids = []
    for number, step in enumerate(root.get("steps") or []):
        if not isinstance(step, dict):
            continue
        for name, value in step.items():
            inner = value.get("id") if isinstance(value, dict) else None
            if identity in (step.get("id"), inner) and name not in ("id", "as", "reads"):
                return ("steps", number, name)
            ids += [i for i in (step.get("id"), inner) if i]
    raise SpecError(f"--set {identity}: {unknown_name(identity, [*root, *dict.fromkeys(ids)])}")


def _inside(value: Any, piece: str | int, override: str, place: Place) -> Any:
    if isinstance(value, list) and isinstance(piece, int):
        if piece < len(value):
            return value[piece]
        raise SpecError(f"--set {override}: {spelled(place)} has {len(value)} entries, from 0")
    if isinstance(value, dict) and piece in value:
        return value[piece]
    known = list(value) if isinstance(value, dict) else []
    raise SpecError(f"--set {override}: {spelled(place) or 'specification'}: {unknown_name(str(piece), known)}")


def _line(lines: Mapping[Place, int], place: Sequence[str | int]) -> int:
    for length in range(len(place), -1, -1):
        if tuple(place[:length]) in lines:
            return lines[tuple(place[:length])]
    return 1
