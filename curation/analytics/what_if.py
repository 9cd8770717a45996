"""What a changed specification would select of the rows that are there, beside what its set's newest version selected.

It is decided by the run's own code, over an overlay: signals, found pairs and captured vectors are read from the store,
and what is decided goes into a folder that is thrown away. No picture is read, no operator runs, nothing is written.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from curation.analytics.diff import Move, moves_text
from curation.analytics.overlay import Overlay
from curation.analytics.query import connect
from curation.analytics.selection_beside import StepBeside, lines_of, rows_beside, steps_beside
from curation.ingest import Snapshot, find_snapshot
from curation.job import Job, source_identity
from curation.run import Run
from curation.selection.cluster import Cluster
from curation.selection.near import Near
from curation.stage import SelectionStep
from curation.storage.store import Store
from curation.versions import Chosen, resolve
from schemas.errors import InputError, RunError

_EXAMPLES = 3


@dataclass(frozen=True)
class WhatIf:
    """The selection that a run would make, beside that of a version.

    `lacking` says what only a run can compute: then `counts` and `moves` are empty, and the steps from there on have
    no rows.
    """

    version: str
    steps: tuple[StepBeside, ...]
    counts: Mapping[str, int]  # curated_before, curated_now, both, out, in
    moves: tuple[Move, ...] = ()
    lacking: str = ""

    @property
    def exit_code(self) -> int:
        """0 where the question is answered, else 1."""
        return 1 if self.lacking else 0

    def record(self) -> dict[str, Any]:
        """The answer as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The answer for people."""
        lines = [f"beside {self.version}, the newest version:", "", *_steps_text(self.steps), ""]
        if self.lacking:
            return "\n".join([*lines, f"No more can be told: {self.lacking}."])
        count = self.counts
        lines.append(f"curated: {count['curated_before']:,} before, {count['curated_now']:,} now")
        lines.append(f"{count['both']:,} in both, {count['out']:,} would go out, {count['in']:,} would come in")
        lines += ["", "Rows that would end otherwise:" if self.moves else "Every row would end as it did."]
        return "\n".join([*lines, *moves_text(self.moves)])


def what_if(job: Job, *, examples: int = _EXAMPLES) -> WhatIf:
    """Decide an opened job on what its store has, and compare with the newest version of its set.

    Raises InputError where the set has no version, or the specification is over other rows; RunError as a run would.
    """
    store = Store.existing(job.store_path)
    current = resolve(store, job.spec.name)
    snapshot = _snapshot(store, job)
    if snapshot.keys != current.manifest.pool:
        raise _other_rows(current, f"it has {snapshot.keys:,} rows, and the version has {current.manifest.pool:,}")
    job.refuse_chance(snapshot.keys)
    lines = lines_of(current.manifest, job.spec)
    with tempfile.TemporaryDirectory(prefix="pairmill-") as folder:
        overlay = Overlay(store, Path(folder), refuse_training=_trains(job))
        run = Run(overlay, job.named(overlay, snapshot), snapshot, job.watcher, lambda: _refuse_join(overlay))
        lacking = _decide(run, overlay)
        steps = tuple(steps_beside(run, current.manifest, lines))
        if lacking:
            return WhatIf(current.label, steps, {}, lacking=lacking)
        name, version, spill = job.spec.name, current.manifest.version, Path(folder)
        with connect(store.root, name, version, downloads=False, evaluations=False, spill=spill) as connection:
            counts, moves = rows_beside(connection, run, current.manifest, lines, examples)
    if counts["elsewhere"]:
        raise _other_rows(current, f"{counts['elsewhere']:,} keys are in one of them only")
    return WhatIf(current.label, steps, {name: n for name, n in counts.items() if name != "elsewhere"}, moves)


def _snapshot(store: Store, job: Job) -> Snapshot:
    found = find_snapshot(store, source_identity(job.spec, job.source, job.wishes.limit))
    if found is None:
        raise InputError(
            f"what-if: the store {store.root} has not read this source (its files, `columns` and --limit together); "
            "`pairmill run` reads it"
        )
    return found


def _other_rows(current: Chosen, how: str) -> InputError:
    return InputError(
        f"what-if: the specification is not over the rows of {current.label}: {how}; compare over one source and one "
        "--limit, or let `pairmill run` make the version and `pairmill diff` compare it"
    )


def _trains(job: Job) -> bool:
    return any(isinstance(step, SelectionStep) and isinstance(step.step, Near | Cluster) for step in job.plan.steps)


def _refuse_join(overlay: Overlay) -> NoReturn:
    overlay.refuse("its rows have not been compared so far, which is long work; `pairmill run` would do it")


def _decide(run: Run, overlay: Overlay) -> str:
    """Decide as far as is possible; say what is lacking."""
    try:
        if run.advance():
            return ""
    except RunError as error:
        if not overlay.lacking:
            raise
        return str(error)
    missing = " and ".join(f"{rows:,} rows at {label}" for label, rows in run.missing_rows().items())
    alive = run.fates.alive
    return f"signals are not there of {missing} (of {alive:,} alive); `pairmill run` would compute them and go on"


def _steps_text(steps: Sequence[StepBeside]) -> list[str]:
    """The two funnels side by side; `*` is changed, `+` new, `-` gone."""
    names = [step.now or step.before or "" for step in steps]
    wide = max(map(len, names))
    lines = [f"  {'':{wide}}{'before: in':>14}{'out':>14}{'now: in':>14}{'out':>14}"]
    for name, step in zip(names, steps, strict=True):
        mark = "+" if step.before is None else "-" if step.now is None else "*" if step.changed else " "
        rows = (step.rows_in_before, step.rows_out_before, step.rows_in_now, step.rows_out_now)
        cells = "".join(f"{'' if count is None else f'{count:,}':>14}" for count in rows)
        lines.append(f"{mark} {name:{wide}}{cells}".rstrip())
    return lines
