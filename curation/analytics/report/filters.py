"""The steps that drop rows: what can be said of a row at each, and the thresholds that they hold it against.

A row's `place` is the number of the step in the funnel where it ended. At the steps before it passed, at that one it
did not; of the later ones something is known only where they hold columns against constants that were computed by
then. Where a column was not, nobody knows, and nothing is guessed.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb

from curation.analytics.report.questions import Questions
from curation.analytics.report.thresholds import Threshold, named, thresholds_in
from curation.sql_expression import require_function_of_row, used_columns
from schemas.errors import InputError

PLACE = "__place__"  # no column is called that
CURATED_PLACE = 1 << 30
_ASIDE = ("mark", "cluster")


@dataclass(frozen=True)
class Filter:
    """A step that drops rows, by its place in the funnel.

    `test` is SQL that is true for the rows that would pass, or empty where that depends on other rows; it is known
    for rows that ended behind `known_after`.
    """

    place: int
    step: str
    kind: str
    removed: int
    test: str = ""
    known_after: int = CURATED_PLACE
    thresholds: tuple[Threshold, ...] = ()

    @property
    def outcome(self) -> str:
        """SQL over `placed`: whether a row passes this filter taken for itself; NULL where that is not known."""
        cases = f"WHEN {PLACE} > {self.place} THEN true WHEN {PLACE} = {self.place} THEN false"
        if self.test:
            cases += f" WHEN {PLACE} > {self.known_after} THEN TRY(coalesce({self.test}, false))"
        return f"CASE {cases} END"


class Filters:
    """All filters of a version."""

    def __init__(self, asked: Questions) -> None:
        self._asked = asked
        self._places = {label: place for place, label in enumerate(asked.labels)}

    @cached_property
    def all(self) -> tuple[Filter, ...]:
        """The filters in the order of the funnel."""
        steps = self._asked.manifest.spec.get("steps", [])
        entries = list(enumerate(self._asked.manifest.funnel))[1:]
        return tuple(
            self._filter(place, step.get("parameters"))
            for (place, entry), step in zip(entries, steps, strict=False)
            if entry.step not in self._asked.manifest.operators and not _drops_nothing(entry.kind, step)
        )

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds of all filters in their order."""
        return tuple(threshold for each in self.all for threshold in each.thresholds)

    @property
    def placed(self) -> str:
        """The samples with the place where each row ended, as a table in SQL."""
        labels = ", ".join("'" + label.replace("'", "''") + "'" for label in self._asked.labels)
        ended = f"coalesce(list_position([{labels}], fate_step) - 1, 0)"
        return f"(SELECT *, CASE fate WHEN 'curated' THEN {CURATED_PLACE} ELSE {ended} END AS {PLACE} FROM samples)"

    def known_after(self, expression: str) -> int | None:
        """The last step that adds a column of the expression; None where it cannot be asked of the samples."""
        added_at = {column.name: column.step for column in self._asked.manifest.columns}
        try:
            require_function_of_row(expression, added_at)
            used = used_columns(expression, added_at)
            self._asked.ask("binds", expression=expression)
        except (InputError, duckdb.Error):  # an embedding, or the SQL of another DuckDB
            return None
        return max((self._places.get(added_at[name], 0) for name in used), default=0)

    def _filter(self, place: int, parameters: Any) -> Filter:
        entry = self._asked.manifest.funnel[place]
        plain = Filter(place, entry.step, entry.kind, entry.rows_in - entry.rows_out)
        if entry.kind == "keep" and isinstance(parameters, str):
            return self._keep(plain, parameters)
        if entry.kind == "top" and isinstance(parameters, dict) and "by" in parameters:
            return self._top(plain, parameters)
        return plain

    def _keep(self, plain: Filter, predicate: str) -> Filter:
        known_after = self.known_after(predicate)
        if known_after is None:
            return plain
        found = thresholds_in(plain.step, predicate, list(self._asked.types))
        return replace(plain, test=f"(\n{predicate}\n)", known_after=known_after, thresholds=tuple(found))

    def _top(self, plain: Filter, parameters: dict[str, Any]) -> Filter:
        """The value of the last row that passed; none where each group has its own."""
        by = str(parameters["by"])
        known_after = self.known_after(by)
        if known_after is None or parameters.get("per"):
            return plain
        lowest = parameters.get("order", "desc") == "desc"
        name, expression = named(by, list(self._asked.types))
        pieces = {"placed": self.placed, "expression": expression, "least": "min" if lowest else "max"}
        ((limit,),) = (row.values() for row in self._asked.ask("decided_by_top", {"place": plain.place}, **pieces))
        if limit is None:
            return plain
        threshold = Threshold(plain.step, name, expression, ">=" if lowest else "<=", limit)
        test = f"({threshold.condition} AND NOT isnan(({expression})::DOUBLE))"
        return replace(plain, test=test, known_after=known_after, thresholds=(threshold,))


def _drops_nothing(kind: str, step: dict[str, Any]) -> bool:
    parameters = step.get("parameters")
    return kind in _ASIDE or (isinstance(parameters, dict) and bool(parameters.get("mark")))
