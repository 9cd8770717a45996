"""A finished version of a curated set: shards, samples and manifest in a folder, named by their content."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.analytics.catalogue import write_catalogue
from curation.materialise import ShardsWanted, WrittenShard
from curation.part_rows import PartRows
from curation.plan import shards_wanted
from curation.run import Run
from curation.samples import sample_columns, write_samples
from curation.stage import OperatorStep, Plan, SelectionStep
from curation.storage import layout
from curation.storage.store import FileRef, Store, digest
from curation.versions import Chosen
from schemas.columns import CAPTION, IMAGE, KEY, URL, Column
from schemas.manifest import Manifest
from schemas.pipeline import CurationSpec


def publish(
    store: Store,
    spec: CurationSpec,
    run: Run,
    shards: Sequence[WrittenShard],
    funnel: list[dict[str, Any]],
    number: int,
) -> tuple[Path, str]:
    """Name the version by its content, link its files, put its manifest; return manifest.json and the version."""
    samples = _samples(store, run)
    steps = [step.model_dump(mode="json", exclude_defaults=True) for step in spec.steps]
    sections = {"steps": steps, "shards": spec.shards.model_dump(mode="json")}
    content = [[shard.record() for shard in shards], [ref.sha256 for ref, _ in samples]]
    version = digest([sections, content, funnel])[:16]
    selections = [step for step in run.plan.steps if isinstance(step, SelectionStep)]
    manifest = Manifest.model_validate(
        {
            "name": spec.name,
            "version": version,
            "rows": sum(shard.rows for shard in shards),
            "pool": run.snapshot.keys,
            "columns": _columns(run.plan, shards_wanted(spec, run.plan)),
            "shards": [_shard_entry(version, shard) for shard in shards],
            "samples": [_sample_entry(version, i, ref, rows) for i, (ref, rows) in enumerate(samples)],
            "funnel": funnel,
            "spec": sections,
            "operators": {
                step.label: step.base_fingerprint for step in run.plan.steps if isinstance(step, OperatorStep)
            },
            "decisions": {run.plan.steps[index].label: facts for index, facts in sorted(run.fates.facts.items())},
            "lineage": {
                "source": run.snapshot.identity,
                "snapshot": run.snapshot.digest,
                "against": {s.label: [file.sha256 for file in s.against] for s in selections if s.against},
            },
        }
    )
    _link_files(store, manifest, shards, samples)
    path = layout.curated(spec.name, f"{version}.json")
    write_catalogue(store, Chosen(store.path(path), manifest), _put_ledgers(store, run))
    text = manifest.model_dump_json(indent=1).encode()
    with store.new_file(".json") as file:
        file.path.write_bytes(text)
    store.link(store.path(file.ref.name), path)
    text = store.path(path).read_bytes()  # of the run that first came to this version, by another source perhaps
    paces = {name: asdict(pace) for name, pace in run.paces.items()}
    record = {"name": spec.name, "version": version, "plan": run.plan.name, "at": time.time(), "paces": paces}
    store.put(layout.finished(number), record)
    _make_newest(store, spec.name, number, text)
    return store.path(layout.curated(spec.name, "manifest.json")), version


def _samples(store: Store, run: Run) -> list[tuple[FileRef, int]]:
    """The wide table of the plan, written once."""
    name = layout.plan(run.plan.name, "samples")
    record = store.get(name)
    if record is None:
        files = write_samples(store, run.plan, run.snapshot, run.fates)
        store.put(name, [[ref.record(), rows] for ref, rows in files])
        record = store.get(name)
    return [(FileRef(**ref), rows) for ref, rows in record]


def _put_ledgers(store: Store, run: Run) -> list[str]:
    """Record where it is noted how the plan's pictures were fetched: what differs from run to run is in no manifest."""
    name = layout.plan(run.plan.name, "ledgers")
    recorded: list[str] | None = store.get(name)
    if recorded is not None:
        return recorded
    fetchers = [step for step in run.plan.steps if isinstance(step, OperatorStep) and step.brings_pictures]
    found: set[str] = set()
    for member in run.snapshot.parts if fetchers else ():
        rows = PartRows(store, run.plan, member, run.fates.marks.get(member.part.name))
        for step in fetchers:
            sidecar = rows.operator(step.index).sidecar
            found |= {ref.name for ref in (sidecar.ledgers if sidecar else ())}
    store.put(name, sorted(found))
    return sorted(found)


def _columns(plan: Plan, wanted: ShardsWanted) -> list[dict[str, Any]]:
    """Name, type and meaning of every column that samples and shards may have."""
    visible = {**plan.columns, **sample_columns(plan)}
    in_shards = {KEY.name, URL.name, CAPTION.name, wanted.caption, *wanted.columns}
    return [
        {
            "name": name,
            "type": _type_name(where.column),
            "meaning": where.column.meaning,
            "step": plan.steps[where.step].label if where.step >= 0 else "source",
            "in_shards": name in in_shards,
        }
        for name, where in visible.items()
        if name != IMAGE.name
    ]


def _type_name(column: Column) -> str:
    return f"float16[{column.width}]" if column.is_embedding else str(column.type)


def _shard_entry(version: str, shard: WrittenShard) -> dict[str, Any]:
    tar, parquet = shard.tar, shard.parquet
    return {
        "tar": f"{version}/{shard.name}.tar" if tar else None,
        "parquet": f"{version}/{shard.name}.parquet",
        "rows": shard.rows,
        "tar_sha256": tar.sha256 if tar else None,
        "parquet_sha256": parquet.sha256,
        "tar_bytes": tar.bytes if tar else None,
        "parquet_bytes": parquet.bytes,
        "holdout": shard.holdout,
    }


def _sample_entry(version: str, number: int, ref: FileRef, rows: int) -> dict[str, Any]:
    name = f"{version}/samples-{number:06d}.parquet"
    return {"parquet": name, "rows": rows, "parquet_sha256": ref.sha256, "parquet_bytes": ref.bytes}


def _link_files(
    store: Store, manifest: Manifest, shards: Sequence[WrittenShard], samples: Sequence[tuple[FileRef, int]]
) -> None:
    """Give the version's files their names; then what users of other tools expect beside them."""
    for entry, shard in zip(manifest.shards, shards, strict=True):
        _link(store, manifest.name, shard.parquet, entry.parquet)
        if shard.tar is not None and entry.tar is not None:
            _link(store, manifest.name, shard.tar, entry.tar)
    for sample, (ref, _) in zip(manifest.samples, samples, strict=True):
        _link(store, manifest.name, ref, sample.parquet)
    _put_text(store, manifest, "sizes.json", sizes_text(manifest))
    _put_text(store, manifest, "README.md", card(manifest))


def _link(store: Store, name: str, ref: FileRef, path: str) -> None:
    store.link(store.path(ref.name), layout.curated(name, path))


def _put_text(store: Store, manifest: Manifest, name: str, text: str) -> None:
    with store.new_file(Path(name).suffix) as file:
        file.path.write_text(text, encoding="utf-8")
    _link(store, manifest.name, file.ref, f"{manifest.version}/{name}")


def _make_newest(store: Store, name: str, number: int, manifest: bytes) -> None:
    """Replace manifest.json unless a run that started later has finished: the only file that is ever replaced."""
    with store.lock(exclusive=True, name=layout.curated(name, ".lock"), wait=True):
        later = number + 1
        while (record := store.get(layout.run(later))) is not None:
            if record["name"] == name and store.get(layout.finished(later)) is not None:
                return
            later += 1
        target = store.path(layout.curated(name, "manifest.json"))
        temporary = target.with_name(f".manifest-{number}.json")
        temporary.write_bytes(manifest)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)


def sizes_text(manifest: Manifest) -> str:
    """`sizes.json`, by which open_clip's loader knows how many pairs a tar has."""
    sizes = {Path(entry.tar).name: entry.rows for entry in manifest.training_shards if entry.tar}
    return json.dumps(sizes, indent=1, sort_keys=True) + "\n"


def card(manifest: Manifest) -> str:
    """The data set card: what the set is, how it was made, how to read it."""
    redacted = sum(shard.redacted for shard in manifest.shards)
    lines = [
        f"# {manifest.name}",
        "",
        f"Version `{manifest.version}`: {manifest.rows:,} image–text pairs out of {manifest.pool:,}, "
        f"in {len(manifest.shards)} shards. Made by Pairmill.",
        *([f"{redacted:,} of its pairs were taken out of the shards later, on request."] if redacted else []),
        "",
        "## Funnel",
        "",
        "| step | rows in | rows out | reason |",
        "|---|---:|---:|---|",
        *(f"| {e.step} | {e.rows_in:,} | {e.rows_out:,} | {_cell(e.reason)} |" for e in manifest.funnel),
        "",
        "## Columns",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
        *(f"| {column.name} | {column.type} | {_cell(column.meaning)} |" for column in manifest.columns),
        "",
        "## Reading it",
        "",
        "Each `shard-*.tar` is a WebDataset shard (`<key>.jpg`, `<key>.txt`, `<key>.json`); the Parquet of the same",
        "name has the same rows in the same order; `holdout-*` are for evaluation. `samples-*.parquet` has every",
        "row that was looked at, with its fate.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
