"""What a run would do, told without doing it: `pairmill plan`."""

from curation.ingest import Snapshot, find_snapshot
from curation.job import Job, source_identity
from curation.run import Run
from curation.storage.store import Store
from curation.versions import read_pace
from flows.progress import Progress
from flows.wording import columns_of, count, duration, rate


def preview(job: Job) -> str:
    """The stages of a checked job, what is in its store already, and what would run. Nothing is written."""
    run = _run(job)
    stages = job.plan.stages
    # Where the last step is a barrier, the last stage has nothing to tell of.
    told = [number for number, stage in enumerate(stages) if number == 0 or stage.steps or stage.barrier]
    rows = [_stage(job, run, number) for number in told]
    return "\n".join([_source(job, run), "", columns_of(rows)])


def _run(job: Job) -> Run | None:
    """The run as far as it has come; None where the source is not in the store yet."""
    store = Store(job.store_path)
    if store.get("store.json") is None:
        return None
    store = Store.existing(job.store_path)
    snapshot = find_snapshot(store, source_identity(job.spec, job.source, job.wishes.limit))
    if snapshot is None:
        return None
    job.refuse_chance(snapshot.keys)
    return Run(store, job.named(store, snapshot), snapshot, Progress())


def _source(job: Job, run: Run | None) -> str:
    kind, files = job.spec.source.kind, len(job.source.files)
    told = f"source: {kind}, {files:,} file{'s' if files != 1 else ''}; store {job.store_path}"
    if run is None:
        return f"{told}\nnot in the store yet: it will be read, and its new rows become parts"
    return f"{told}\n{_described(run.snapshot)}"


def _described(snapshot: Snapshot) -> str:
    rejected = f", {count(snapshot.rejected_rows)} of them failed at the source" if snapshot.rejected_rows else ""
    return f"in the store: {count(snapshot.keys)} rows{rejected}, in {len(snapshot.parts):,} parts"


def _stage(job: Job, run: Run | None, number: int) -> tuple[str, str, str]:
    stage = job.plan.stages[number]
    steps = [*stage.steps, *([stage.barrier] if stage.barrier else [])]
    labels = ", ".join(step.label for step in steps) or "(no step)"
    return f"stage {number + 1}", labels, _state(run, number) if run else "to run" + _known_pace(job, number)


def _known_pace(job: Job, number: int) -> str:
    """The pace of a run over other rows, a pilot with --limit say, where the rows of this source are not known yet."""
    store = Store(job.store_path)
    found = read_pace(store, job.plan.stages[number].fingerprint)
    return f"; run {found[1]} did {rate(found[0])}" if found else ""


def _state(run: Run, number: int) -> str:
    if number < run.reached:
        return "done"
    if number > run.reached:
        return "to run, over the rows that live on"
    missing = run.missing_rows()
    if not missing:
        return f"everything is computed; {count(run.fates.alive)} rows to decide on, without workers"
    would = ", ".join(f"{count(rows)} rows from {label}" for label, rows in missing.items())
    return f"to compute: {would} (of {count(run.fates.alive)} alive){_expected(run, sum(missing.values()))}"


def _expected(run: Run, rows: int) -> str:
    """How long it may take, by what a run over other rows took; nothing where none was."""
    found = read_pace(run.store, run.plan.stages[run.reached].fingerprint)
    if found is None:
        return ""
    rows_per_s, number = found
    return f"; about {duration(rows / rows_per_s)} at {rate(rows_per_s)}, as in run {number}"
