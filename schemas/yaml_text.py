"""YAML text → plain values and the place of each, or an error that names the line.

Numbers and booleans are those of YAML 1.2, as people write them: `12_800_000` and `1e-3` are numbers, `no` is a word,
`12:30` and `2024-01-01` are text. Only plain values are taken: no tags, no merging, no key twice.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from schemas.errors import SpecError

Place = tuple[str | int, ...]

_MOST_DEPTH = 40
_MOST_VALUES = 100_000  # a kilobyte of nested aliases can stand for billions
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\}|(\{))")
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Finds out what an unquoted word is."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML looks here; those of YAML 1.1 are not wanted


for _kind, _pattern, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+)\Z", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z", "-+0123456789."),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z", "-+."),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first))


@dataclass
class Text:
    """What a YAML text says: the value, and where each piece of it stands, in words."""

    value: Any
    places: dict[Place, str]


def parse(text: str, at: Callable[[int], str], environment: Mapping[str, str]) -> Text:
    """The value of a YAML text; None for an empty one. `at` says how a line is called in errors. Raises SpecError."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{at(line)}: is no YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise SpecError(
            f"{at(line)}: is no YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        ) from error
    except RecursionError:
        raise SpecError(f"{at(1)}: is nested deeper than {_MOST_DEPTH} levels") from None
    walk = _Walk(at, environment)
    return Text(None if node is None else walk.value(node, ()), walk.places)


@dataclass
class _Walk:
    at: Callable[[int], str]
    environment: Mapping[str, str]
    places: dict[Place, str] = field(default_factory=dict)
    values: int = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        at = self.at(node.start_mark.line + 1)
        self.places.setdefault(place, at)
        self.values += 1
        if len(place) > _MOST_DEPTH:
            raise SpecError(f"{at}: is nested deeper than {_MOST_DEPTH} levels")
        if self.values > _MOST_VALUES:
            raise SpecError(f"{at}: stands for more than {_MOST_VALUES:,} values; are there aliases of aliases?")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(child, (*place, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        raise SpecError(f"{at}: the tag {_tag(node)} is not taken; write a plain mapping or list")

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, child in node.value:
            at = self.at(key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError(f"{at}: a name must be plain text")
            key = key_node.value
            if key == "<<":
                raise SpecError(f"{at}: '<<' (merging mappings) is not taken; write the names out")
            if key in found:
                raise SpecError(f"{at}: {key!r} is there twice; keep one")
            self.places[(*place, key)] = at
            found[key] = self.value(child, (*place, key))
        return found

    def _scalar(self, node: yaml.ScalarNode, at: str) -> Any:
        text = node.value
        try:
            if node.tag == _TAG + "str":
                return self._with_variables(text, at)
            return _CONSTRUCT[node.tag](text.replace("_", ""))
        except KeyError:
            raise SpecError(f"{at}: the tag {_tag(node)} is not taken; write a plain value") from None
        except ValueError as error:
            raise SpecError(f"{at}: {text[:80]!r} cannot be read: {error}") from error

    def _with_variables(self, text: str, at: str) -> str:
        def value(found: re.Match[str]) -> str:
            dollar, name, brace = found.groups()
            if dollar:
                return "$"
            if brace:
                raise SpecError(f"{at}: '${{' begins a variable such as ${{HOME}}; for the characters write '$${{'")
            if name not in self.environment:
                raise SpecError(f"{at}: ${{{name}}}: the environment has no {name}; set it, or write $${{{name}}}")
            return self.environment[name]

        return _VARIABLE.sub(value, text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_CONSTRUCT: dict[str, Callable[[str], Any]] = {
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    _TAG + "int": lambda text: int(text, 16 if "x" in text else 10),
    _TAG + "float": _float,
}


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace(_TAG, "!!")
