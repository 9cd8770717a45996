"""One specification on one store, act by act: check, ingest, stages, shards, manifest. Who runs it decides where.

job = Job.open(spec)                 # checks everything that can be known; nothing is written
job.start(executor)                  # ingest; the executor only for sources that bring images
while not job.advance():             # as far as no worker is needed
    job.run.run_stage(executor())    # one stage with workers
result = job.finish(executor)        # shards, manifest
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curation.against import note_against, pin_against, rows_of
from curation.capture import capture_source
from curation.execution.executor import Executor
from curation.execution.operator_run import CRASH, GIVEN_UP
from curation.forget.at_source import forgotten_keys
from curation.forget.tombstones import read_requests
from curation.forget.unfinished import require_no_unfinished_purge
from curation.ingest import Snapshot, Staging, find_snapshot, ingest
from curation.materialise import Materialiser
from curation.plan import build_plan, name_plan, shards_wanted
from curation.publish import publish
from curation.run import Run, Watcher, funnel
from curation.sources.open import CapturedSource, TableSource, TableWithArrays, open_source
from curation.stage import OperatorStep, Plan, SelectionStep
from curation.storage import layout
from curation.storage.store import Store
from schemas.errors import InputError
from schemas.nearest import unknown_name
from schemas.pipeline import CurationSpec

_SHARDS_WITHOUT_WORKERS = 8  # so few tars are written before Ray has started


@dataclass(frozen=True)
class Result:
    """A finished data set."""

    manifest: Path
    version: str
    pool: int
    curated: int
    funnel: list[dict[str, Any]]
    may_pass: int = 0  # failed rows whose failure may pass
    warnings: tuple[str, ...] = ()  # what is odd about a decision

    def record(self) -> dict[str, Any]:
        """What `run --json` prints."""
        return {
            "manifest": str(self.manifest),
            "version": self.version,
            "rows": {"pool": self.pool, "curated": self.curated},
            "funnel": self.funnel,
        }


@dataclass(frozen=True)
class Wishes:
    """What a run is asked for beside its specification."""

    store: Path | None = None
    limit: int | None = None
    retry: tuple[str, ...] | None = None  # classes of passing failures to try again; () for all
    give_up: Sequence[str] = ()


@dataclass
class Job:
    """One run of one specification."""

    spec: CurationSpec
    plan: Plan
    source: TableSource | TableWithArrays | CapturedSource
    store_path: Path
    wishes: Wishes
    watcher: Watcher
    _run: Run | None = None
    _materialiser: Materialiser | None = None
    number: int = -1

    @classmethod
    def open(cls, spec: CurationSpec, watcher: Watcher, wishes: Wishes | None = None) -> "Job":
        """Check everything that can be known before running. Raises InputError; nothing is written."""
        wishes = wishes or Wishes()
        source = open_source(spec.source, wishes.limit)
        plan = build_plan(spec, source.extra, captured=isinstance(source, CapturedSource))
        shards_wanted(spec, plan)
        plan = pin_against(plan, spec.name)
        _require_passing(plan, wishes.retry or ())
        return cls(spec, plan, source, Path(wishes.store or spec.store), wishes, watcher)

    @property
    def run(self) -> Run:
        """The run; `start` comes first."""
        assert self._run is not None
        return self._run

    @property
    def store(self) -> Store:
        """The store that the job works on."""
        return self.run.store

    def start(self, executor: Callable[[], Executor]) -> None:
        """Ingest the source, name the plan, and record that the run has started."""
        store = Store.open(self.store_path)
        require_no_unfinished_purge(store)
        snapshot = self._ingest(store, executor)
        self.plan = self.named(store, snapshot)
        for part in self.wishes.give_up:
            _give_up(store, self.plan, snapshot, part)
        note_against(self.plan, self.spec.name)
        self.number = _start_record(store, self.spec.name, self.plan.name)
        self._run = Run(store, self.plan, snapshot, self.watcher, executor)

    def advance(self) -> bool:
        """Go as far as no worker is needed; say whether every row has its fate."""
        return self.run.advance()

    @property
    def materialiser(self) -> Materialiser:
        """What writes the shards of the decided plan."""
        if self._materialiser is None:
            wanted = shards_wanted(self.spec, self.plan)
            self._materialiser = Materialiser(self.store, self.plan, self.run.snapshot, self.run.fates, wanted)
        return self._materialiser

    @property
    def shards_need_workers(self) -> bool:
        """Whether so many tars are missing that workers are worth their start."""
        return self.materialiser.with_pictures and len(self.materialiser.missing) > _SHARDS_WITHOUT_WORKERS

    def finish(self, executor: Executor | None = None) -> Result:
        """Write the missing shards and the manifest."""
        shards = self.materialiser.write(executor, self.watcher.shards)
        rows = funnel(self.plan, self.run.snapshot, self.run.fates)
        manifest, version = publish(self.store, self.spec, self.run, shards, rows, self.number)
        passing = passing_classes(self.plan)
        may_pass = sum(n for counts in self.run.fates.statuses.values() for s, n in counts.items() if s in passing)
        facts = sorted(self.run.fates.facts.items())
        warnings = tuple(f"{self.plan.steps[i].label}: {said}" for i, f in facts for said in f.get("warnings", ()))
        return Result(manifest, version, self.run.snapshot.keys, self.run.fates.alive, rows, may_pass, warnings)

    def _ingest(self, store: Store, executor: Callable[[], Executor]) -> Snapshot:
        identity = source_identity(self.spec, self.source, self.wishes.limit)
        if isinstance(self.source, CapturedSource):
            assert self.plan.capture is not None
            size = self.spec.source.rows_per_part
            snapshot = capture_source(store, self.source, identity, self.plan.capture, size, executor)
            self.refuse_chance(snapshot.keys)
            return snapshot
        found = find_snapshot(store, identity)
        if found:
            self.refuse_chance(found.keys)
            return found
        if self.wishes.give_up:
            raise InputError("--give-up: the source has not been read yet, so no part of it can be stuck; run it first")
        with store.temporary_folder() as folder:
            relation = (
                self.source.relation(folder) if isinstance(self.source, TableWithArrays) else self.source.relation()
            )
            staging = Staging(identity, relation, dict(self.source.extra))
            return ingest(store, staging, self.spec.source.rows_per_part, self.refuse_chance)

    def refuse_chance(self, keys: int) -> None:
        """Refuse steps that would find neighbours by chance among so many rows. Raises InputError."""
        for step in self.plan.steps:
            refuse = getattr(getattr(step, "step", None), "refuse_chance_neighbours", None)
            if isinstance(step, SelectionStep) and refuse is not None:
                try:
                    refuse(rows_of(step.against) if step.against else keys)
                except InputError as error:
                    raise InputError(f"{step.label}: {error}") from error

    def named(self, store: Store, snapshot: Snapshot) -> Plan:
        """The plan under its name; the newest retry of it unless a new one is asked for."""
        plan = replace(self.plan, tombstones=tuple(request.file for request in read_requests(store)))
        forgotten = forgotten_keys(store, plan, snapshot)
        base = name_plan(plan, self.spec, snapshot, 0, forgotten)
        ordinal, classes = 0, None
        while (record := store.get(layout.plan(base, f"retry-{ordinal + 1:04d}"))) is not None:
            ordinal, classes = ordinal + 1, tuple(record["classes"])
        if self.wishes.retry is not None:
            ordinal, classes = ordinal + 1, tuple(self.wishes.retry)
            while not store.put(layout.plan(base, f"retry-{ordinal:04d}"), {"classes": list(classes)}):
                ordinal += 1  # another run asks for a retry at the same time; its classes may differ
        return replace(plan, name=name_plan(plan, self.spec, snapshot, ordinal, forgotten), retry=classes)


def passing_classes(plan: Plan) -> set[str]:
    """Statuses of failures that may pass, of all operators of a plan."""
    operators = [step.operator for step in plan.steps if isinstance(step, OperatorStep)]
    return {CRASH, GIVEN_UP}.union(*(operator.passing for operator in operators))


def _require_passing(plan: Plan, classes: Sequence[str]) -> None:
    passing = passing_classes(plan)
    for name in classes:
        if name not in passing:
            raise InputError(f"--retry-failed {name}: {unknown_name(name, sorted(passing), 'failures that may pass')}")


def source_identity(
    spec: CurationSpec, source: TableSource | TableWithArrays | CapturedSource, limit: int | None
) -> dict[str, Any]:
    """What names a source snapshot: contents, column mapping, limit; no path and no time."""
    arrays = {"arrays": source.identity()} if isinstance(source, TableWithArrays) else {}
    return arrays | {
        "kind": spec.source.kind,
        "files": [[file.bytes, file.sha256] for file in source.files],
        "columns": dict(spec.source.columns),
        "limit": limit,
    }


def _start_record(store: Store, name: str, plan: str) -> int:
    number = 0
    while not store.put(layout.run(number), {"name": name, "plan": plan}):
        number += 1
    return number


def _give_up(store: Store, plan: Plan, snapshot: Snapshot, part: str) -> None:
    names = [member.part.name for member in snapshot.parts]
    if part not in names:
        there = f"it has {names[0]} to {names[-1]}" if names else "it has none"
        raise InputError(f"--give-up {part}: the source has no such part; {there}")
    store.put(layout.plan(plan.name, f"given-up-{part}"), {"part": part})
