"""What is wrong with the steps of a plan, all at once: a sentence per step, without what only follows from others."""

import difflib
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from curation.registry import Registry, dataset_steps
from schemas.errors import InputError
from schemas.pipeline import Step

_MISSING = ("which no earlier step adds", "Referenced column")  # how errors about missing columns are worded


class Refusals:
    """Collects the errors of steps, and raises them together."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._sentences: list[str] = []
        self._first: InputError | None = None
        self._lost: set[str] = set()  # columns that refused steps would have added
        self._blind = False  # whether a refused step would have added who knows what

    def add(self, where: str, step: Step, error: InputError, columns: Collection[str]) -> None:
        """Note what is wrong with a step, unless it merely lacks what a refused step would have added."""
        text = str(error)
        if not self._follows(text.lower(), columns):
            self._sentences.append(f"{where}: {text}")
            self._first = self._first or error
        added = self._would_add(step)
        self._blind |= added is None
        self._lost |= added or set()

    def raise_all(self) -> None:
        """Raise InputError with a line per step that is wrong."""
        if self._sentences:
            raise InputError("\n".join(self._sentences)) from self._first

    def _follows(self, text: str, columns: Collection[str]) -> bool:
        if not any(wording.lower() in text for wording in _MISSING):
            return False
        missing = [name.lower() for name in self._lost if name not in columns]
        return self._blind or any(f"'{name}'" in text or f'"{name}"' in text for name in missing)

    def _would_add(self, step: Step) -> set[str] | None:
        """The columns that a step would add if it were right; None where that cannot be known."""
        parameters = step.parameters if isinstance(step.parameters, Mapping) else {}
        if step.name == "derive":
            return {str(name) for name in parameters} or None
        names = [*self._registry.operators, *dataset_steps()]
        near = [step.name] if step.name in names else difflib.get_close_matches(step.name, names, 1)
        if not near:
            return None
        if near[0] in dataset_steps():
            joined = parameters.get("columns", ()) if near[0] == "join" else ()
            return {str(name) for name in joined} | ({str(parameters["mark"])} if "mark" in parameters else set())
        added = self._added_by(near[0], parameters)
        if added is None:
            return None
        own = step.as_prefix or near[0]
        bare = {"status", "error"} if near[0] == "download" else set()
        prefixed = {f"{step.as_prefix}_{name}" if step.as_prefix else name for name in added}
        return prefixed | bare | {f"{own}_status", f"{own}_error"}

    def _added_by(self, name: str, given: Mapping[str, object]) -> set[str] | None:
        for parameters in (given, {}):
            try:
                return {column.name for column in self._registry.operator(name, parameters).build().adds}
            except (ValidationError, InputError, AttributeError, TypeError):
                continue
        return None
