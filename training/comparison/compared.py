"""A finished comparison: what was trained on what, what came out, and the verdict, as JSON, tables and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.comparison.verdict import Estimate, Verdict, is_less_better
from training.run_folder import put_json

RECORD, MARKDOWN = "comparison.json", "comparison.md"
Table = list[tuple[str, ...]]
"""The first row is the head."""


@dataclass(frozen=True)
class Compared:
    """One of the sets: how large it is, how often each row was seen, and what it cost, in seconds.

    `training_s` are of each seed, without evaluations; `curation_s` is None where nobody noted it.
    """

    name: str
    version: str
    manifest: str
    rows: int
    repeats: float
    training_s: tuple[float, ...]
    devices: tuple[str, ...]
    curation_s: float | None
    scores: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Comparison:
    """The whole of it; `samples` are seen in each training, `terms` are what all of them share."""

    folder: Path
    training: str
    seeds: tuple[int, ...]
    steps: int
    samples: int
    sets: tuple[Compared, ...]
    verdict: Verdict
    terms: Mapping[str, Any]

    def put(self) -> None:
        """Write comparison.json and comparison.md into the folder."""
        (self.folder / MARKDOWN).write_text(self.markdown(), encoding="utf-8")
        put_json(self.folder / RECORD, self.record())

    def record(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        verdict = self.verdict
        means = {name: {metric: asdict(found) for metric, found in of.items()} for name, of in verdict.means.items()}
        return {
            "training": self.training,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "samples": self.samples,
            "sets": [asdict(one) for one in self.sets],
            "means": means,
            "differences": [difference.record() for difference in verdict.differences],
            "verdict": list(verdict.sentences),
            "note": self.note,
            "terms": dict(self.terms),
        }

    @property
    def head(self) -> str:
        """What was trained how often."""
        seeds = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        return (
            f"{self.training}: {len(self.sets)} sets, {self.samples:,} samples seen in {self.steps:,} steps on each, "
            f"{seeds}"
        )

    @property
    def note(self) -> str:
        """How intervals and verdict are to be read."""
        if len(self.seeds) == 1:
            return "One seed: no interval exists, and no verdict."
        count = len(self.verdict.differences)
        correction = f" after Holm's correction for {count} comparisons" if count > 1 else ""
        less = [one.metric for one in self.verdict.differences if is_less_better(one.metric)]
        smaller = f" Of {', '.join(dict.fromkeys(less))} less is better." if less else ""
        return (
            f"Intervals: 95 %, Student's t over {len(self.seeds)} seeds, each for itself. Better: where the paired "
            f"t-test says so (5 %){correction}.{smaller}"
        )

    def tables(self) -> dict[str, Table]:
        """For people, by title: the sets, their scores, and what lies between them."""
        return {"sets": self._sets(), "scores": self._scores(), "differences": self._differences()}

    def markdown(self) -> str:
        """The comparison as a Markdown page."""
        tables = [f"## {title.capitalize()}\n\n{_markdown(table)}" for title, table in self.tables().items()]
        verdict = "\n".join(f"- {sentence}" for sentence in self.verdict.sentences)
        return "\n\n".join([f"# {self.head}", verdict, *tables, self.note]) + "\n"

    def _sets(self) -> Table:
        table: Table = [("set", "version", "rows", "repeats", "training", "on", "curation")]
        for one in self.sets:
            training = f"{sum(one.training_s) / len(one.training_s):,.0f} s"
            curation = "not noted" if one.curation_s is None else f"{one.curation_s:,.0f} s"
            on = ", ".join(dict.fromkeys(one.devices))
            table.append((one.name, one.version, f"{one.rows:,}", f"{one.repeats:,.2f}", training, on, curation))
        return table

    def _scores(self) -> Table:
        table: Table = [("metric", *(one.name for one in self.sets))]
        for metric in self.sets[0].scores:
            table.append((metric, *(_shown(self.verdict.means[one.name][metric]) for one in self.sets)))
        return table

    def _differences(self) -> Table:
        table: Table = [("metric", "difference", "mean and interval", "p", "p (Holm)", "better")]
        for one in self.verdict.differences:
            of, p_values = f"{one.other} - {one.first}", (_p(one.p), _p(one.p_holm))
            table.append((one.metric, of, _shown(one.estimate, "+"), *p_values, one.better or "cannot be told"))
        return table


def _shown(found: Estimate, sign: str = "") -> str:
    if found.low is None:
        return f"{found.mean:{sign}.4f}"
    return f"{found.mean:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def _p(value: float | None) -> str:
    return "none" if value is None else f"{value:.2g}"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([rows[0], "|" + "---|" * len(table[0]), *rows[1:]])
