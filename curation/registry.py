"""From a name in a specification to its class: the file's name is the registration.

A user's own operators live in folders that the specification names. What travels to a worker is an `OperatorRef`,
which carries the text of such a file: a worker on another machine builds the same operator from it.
"""

import difflib
import hashlib
import importlib
import pkgutil
import traceback
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import curation.operators
import curation.selection
from curation.operator import Operator
from curation.selection.step import DatasetStep
from schemas.errors import InputError


@dataclass(frozen=True)
class OperatorRef:
    """An operator by name and parameters; `source` is the text of a user's own file, empty for ours."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def build(self) -> Operator:
        """The operator itself. Raises pydantic.ValidationError where a parameter is wrong."""
        return self.operator_class()(**self.parameters)

    def operator_class(self) -> type[Operator]:
        """The operator's class."""
        return _from_text(self.name, self.source) if self.source else _ours(self.name)

    @property
    def source_digest(self) -> str:
        """SHA-256 of a user's own file; empty for ours, whose `version` speaks for the code."""
        return hashlib.sha256(self.source.encode()).hexdigest() if self.source else ""


class Registry:
    """Everything that can stand in `steps`: our operators, a user's own, and the dataset steps."""

    def __init__(self, folders: Iterable[str | Path] = ()) -> None:
        self._own = {path.stem: own_source(path) for folder in folders for path in own_files(folder)}

    @property
    def operators(self) -> list[str]:
        """Names of all row operators, sorted."""
        return sorted([*operator_names(), *self._own])

    def operator(self, name: str, parameters: Mapping[str, Any] | None = None) -> OperatorRef:
        """The reference to an operator of that name; it must exist."""
        return OperatorRef(name, dict(parameters or {}), self._own.get(name, ""))

    def require(self, name: str) -> None:
        """Raise InputError with the nearest names where no step is called that."""
        names = [*self.operators, *dataset_steps()]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names))}"
            raise InputError(f"no operator is called {name!r}; {hint}")


def own_files(folder: str | Path) -> list[Path]:
    """The files of a user's folder that are operators. Raises InputError where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"operators: {folder}: no such folder")
    return [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]


def own_source(path: Path) -> str:
    """The text of a user's own operator. Raises InputError where its name is taken, or it is no text."""
    if path.stem in operator_names() or path.stem in dataset_steps():
        raise InputError(f"operators: your own file {path.name} has the name of a step that exists; rename it")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"operators: your own file {path.name} cannot be read: {error}") from error


@cache
def operator_names() -> tuple[str, ...]:
    """Names of our own row operators: the files of curation/operators/."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(curation.operators.__path__)))


@cache
def dataset_steps() -> dict[str, type[DatasetStep]]:
    """Names of the dataset steps, and their classes."""
    classes = {}
    for module in pkgutil.iter_modules(curation.selection.__path__):
        found = _public_class(importlib.import_module(f"curation.selection.{module.name}"), DatasetStep)
        if found:
            classes[module.name] = found
    return classes


def _ours(name: str) -> type[Operator]:
    return _require_class(importlib.import_module(f"curation.operators.{name}"), name)


@cache
def _from_text(name: str, source: str) -> type[Operator]:
    module = types.ModuleType(f"pairmill_operator_{name}")
    try:
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    except Exception as error:
        line = _line_of(error, f"{name}.py")
        said = error.msg if isinstance(error, SyntaxError) else error
        raise InputError(
            f"operators: your own file {name}.py cannot be loaded: {line}{type(error).__name__}: {said}"
        ) from error
    return _require_class(module, name)


def _line_of(error: Exception, file: str) -> str:
    """`line 3: ` of a user's file where the error arose."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: " if error.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}: " if lines else ""


def _require_class(module: types.ModuleType, name: str) -> type[Operator]:
    found = _public_class(module, Operator)
    if found is None:
        raise InputError(f"operators: {name}.py holds no class that derives from curation.operator.Operator; add one")
    return found


def _public_class(module: types.ModuleType, base: type) -> Any:
    """The one class of a module that derives from `base` and is defined there."""
    found = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and value is not base
        if not name.startswith("_")
    ]
    if len(found) > 1:
        names = ", ".join(sorted(value.__name__ for value in found))
        raise InputError(f"{module.__name__}: holds several operators ({names}); one file, one operator")
    return found[0] if found else None
