"""A selection that a run has decided, beside that of a finished version: the rows of each step, and which rows differ.

Lines are the steps of both specifications in one order (see aligned_steps.py), line 0 the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curation.analytics.aligned_steps import Line, aligned
from curation.analytics.diff import Move
from curation.analytics.query import question
from curation.execution.worker import ALIVE, AT_SOURCE, FIRST_STEP, FORGOTTEN, NOT_MEMBER
from curation.forget.tombstones import FORGET
from curation.run import Run, funnel
from curation.stage import OperatorStep
from curation.storage.tables import read_table
from schemas.columns import KEY
from schemas.manifest import Manifest
from schemas.pipeline import CurationSpec

_CURATED = -1  # the line of rows that no step ended
_NOW = pa.schema([(KEY.name, pa.string()), ("code", pa.int16())])


@dataclass(frozen=True)
class StepBeside:
    """A step of either specification with its rows; None on the side that does not have it, or has not come to it."""

    before: str | None
    now: str | None
    changed: bool  # whether it is declared otherwise
    rows_in_before: int | None
    rows_out_before: int | None
    rows_in_now: int | None
    rows_out_now: int | None


def lines_of(manifest: Manifest, spec: CurationSpec) -> list[Line]:
    """The lines of a version's funnel and a specification's; places count from the source, which is 0."""
    now = [step.model_dump(mode="json", exclude_defaults=True) for step in spec.steps]
    steps = aligned(manifest.spec.get("steps", []), now)
    return [Line(0, 0), *(Line(_next(line.before), _next(line.now), line.changed) for line in steps)]


def _next(place: int | None) -> int | None:
    return None if place is None else place + 1


def steps_beside(run: Run, manifest: Manifest, lines: Sequence[Line]) -> Iterator[StepBeside]:
    """The two funnels side by side, the run's as far as it has decided."""
    now: list[dict[str, Any]] = funnel(run.plan, run.snapshot, run.fates)
    stages = run.plan.stages[: run.reached]
    decided = 1 + sum(len(stage.steps) + (stage.barrier is not None) for stage in stages)
    for line in lines:
        old = None if line.before is None else manifest.funnel[line.before]
        new = None if line.now is None else now[line.now]
        told = new if new is not None and line.now is not None and line.now < decided else None
        yield StepBeside(
            before=old.step if old else None,
            now=new["step"] if new else None,
            changed=line.changed,
            rows_in_before=old.rows_in if old else None,
            rows_out_before=old.rows_out if old else None,
            rows_in_now=told["rows_in"] if told else None,
            rows_out_now=told["rows_out"] if told else None,
        )


def rows_beside(
    connection: duckdb.DuckDBPyConnection, run: Run, manifest: Manifest, lines: Sequence[Line], examples: int
) -> tuple[Mapping[str, int], tuple[Move, ...]]:
    """Counts of rows by what became of them on both sides, and those that end otherwise.

    `connection` has the version's `samples`. `elsewhere` counts the rows that only one of the sides has.
    """
    connection.register("before_lines", _before_lines(manifest, lines))
    connection.register("now_lines", _now_lines(run, lines))
    connection.register("now", pa.RecordBatchReader.from_batches(_NOW, _now(run)))
    found = connection.execute(question("what_if"), {"examples": examples}).fetchall()
    counts = dict.fromkeys(("curated_before", "curated_now", "both", "out", "in", "elsewhere"), 0)
    for fate, _, fate_now, _, rows, _, _ in found:
        was, is_now = fate == "curated", fate_now == "curated"
        held = {"curated_before": was, "curated_now": is_now, "both": was and is_now, "out": was and not is_now}
        held |= {"in": is_now and not was, "elsewhere": fate is None or fate_now is None}
        for name, holds in held.items():
            counts[name] += rows if holds else 0
    moves = tuple(Move(row[0], row[1], row[2], row[3], row[4], tuple(row[5])) for row in found if row[6])
    return counts, moves


def _before_lines(manifest: Manifest, lines: Sequence[Line]) -> pa.Table:
    """The line of each step at which a version's rows ended."""
    rows = [{"step": "", "line": _CURATED}, {"step": FORGET, "line": 0}]
    for number, line in enumerate(lines):
        if line.before is not None:
            rows.append({"step": manifest.funnel[line.before].step, "line": number})
    return pa.Table.from_pylist(rows)


def _now_lines(run: Run, lines: Sequence[Line]) -> pa.Table:
    """What each code of the run's fates means."""
    rows = [{"code": ALIVE, "line": _CURATED, "fate": "curated", "step": ""}]
    rows.append({"code": AT_SOURCE, "line": 0, "fate": "failed", "step": "source"})
    rows.append({"code": FORGOTTEN, "line": 0, "fate": "dropped", "step": FORGET})
    for number, line in enumerate(lines):
        if line.now:
            step = run.plan.steps[line.now - 1]
            fate = "failed" if isinstance(step, OperatorStep) else "dropped"
            rows.append({"code": FIRST_STEP + step.index, "line": number, "fate": fate, "step": step.label})
    return pa.Table.from_pylist(rows)


def _now(run: Run) -> Iterator[pa.RecordBatch]:
    """Key and code of every row of the snapshot, part by part."""
    rejected = read_table(run.store, run.snapshot.rejected, [KEY.name])[KEY.name]
    yield from _batches(rejected, np.full(len(rejected), AT_SOURCE, np.int16))
    for member in run.snapshot.parts:
        codes = run.fates.codes[member.part.name]
        keys = read_table(run.store, member.part.file, [KEY.name])[KEY.name]
        chosen = np.flatnonzero(codes != NOT_MEMBER)
        yield from _batches(keys.take(pa.array(chosen)), codes[chosen])


def _batches(keys: pa.ChunkedArray, codes: np.ndarray) -> Sequence[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = pa.table([keys, pa.array(codes)], schema=_NOW).combine_chunks().to_batches()
    return batches
