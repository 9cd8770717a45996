"""Remove what is forgotten from a store for good: from every tar, table and record of it, texts included.

1. plan      copies without the forgotten rows are written beside the old files, and put as `purges/planned.json`
2. switch    every record, then every manifest, is replaced by one that lists the copies
3. remove    the old files, answers of models (which cannot be told apart by row), and what killed processes left
4. record    `purges/<n>.json`: which manifests took the place of which, by SHA-256

It is the one place beside `manifest.json` where something is replaced, and holds the store alone. Killed anywhere, it
goes on from the plan: each step finds done what was done. Until then no run takes the store.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation.analytics.catalogue import FILE as CATALOGUE
from curation.analytics.catalogue import write_catalogue
from curation.analytics.views import ledger_files
from curation.forget.purge_plan import (
    BLOB,
    PurgePlan,
    Replaced,
    blob_of,
    is_shard_record,
    manifests,
    plan_purge,
)
from curation.forget.tombstones import Tombstones
from curation.publish import card, sizes_text
from curation.storage import layout
from curation.storage.store import FileRef, Store, canonical_json, file_sha256
from curation.versions import Chosen
from schemas.manifest import Manifest, read_manifest

_DATA_FILES = ("shard-*", "holdout-*", "samples-*")


def purge(store: Store, tombstones: Tombstones) -> PurgePlan:
    """Remove all that tombstones hit; returns what was done. The caller holds the store alone."""
    plan = plan_purge(store, tombstones)
    if plan.copies:
        store.put(layout.purge_planned(), plan.record())
        finish_purge(store)
    _remove_left_over(store)
    return plan


def finish_purge(store: Store) -> PurgePlan:
    """Do what the planned purge says, if there is one: that of a process which was killed, or our own."""
    record = store.get(layout.purge_planned())
    if record is None:
        return PurgePlan({}, (), {})
    plan = PurgePlan.of(record)
    listed = set[str]()
    for folder in layout.OF_ROWS:
        for path in sorted(store.path(folder).rglob("*.json")):
            listed |= _switch_record(store, path, plan)
    for replaced in plan.versions:
        _switch_version(store, replaced)
    _write_catalogues(store)
    _remove_old(store, plan.old - listed)
    shutil.rmtree(store.path("answers"), ignore_errors=True)
    _record(store, plan)
    store.path(layout.purge_planned()).unlink()
    return plan


def _switch_record(store: Store, path: Path, plan: PurgePlan) -> set[str]:
    """Let a record list the copies; returns which of the old files it still lists, because they are another part's."""
    text = path.read_text(encoding="utf-8")
    if plan.old.isdisjoint(BLOB.findall(text)):
        return set()
    folder, record = path.relative_to(store.root).parts[0], json.loads(text)
    if folder == "snapshots":
        record["parts"] = [_switched_member(member, plan) for member in record["parts"]]
    record = _switched(record, plan.copies_for(path.parts[-3] if folder == "commits" else ""))
    if folder == "plans" and is_shard_record(path.name):
        record["rows"] = pq.read_metadata(store.path(record["parquet"]["name"])).num_rows
    store.replace(path, canonical_json(record))
    return plan.old & set(BLOB.findall(json.dumps(record)))


def _switched_member(member: dict[str, Any], plan: PurgePlan) -> dict[str, Any]:
    """A part of a snapshot with its copies, and with the digests that fingerprints ride on."""
    copies = plan.copies_for(member["part"]["name"])
    digests = plan.digests.get(member["file"]["name"]) if member["file"]["name"] in copies else None
    return _switched(member if digests is None or "digests" in member else member | {"digests": digests}, copies)


def _switched(value: Any, files: dict[str, FileRef]) -> Any:
    """A record that lists the copies."""
    if isinstance(value, dict):
        if value.get("name") in files and "sha256" in value:
            return files[value["name"]].record()
        return {name: _switched(inner, files) for name, inner in value.items()}
    if isinstance(value, list):
        return [_switched(inner, files) for inner in value]
    return files[value].name if isinstance(value, str) and value in files else value


def _switch_version(store: Store, replaced: Replaced) -> None:
    """Give the copies their names, then replace the manifest, then let the old files go."""
    manifest = Manifest.model_validate(replaced.manifest)
    text = manifest.model_dump_json(indent=1).encode()
    path = store.path(layout.curated(replaced.name, f"{replaced.version}.json"))
    folder = path.parent / replaced.version
    for name, sha256 in _files_of(manifest):
        store.link(store.path(blob_of(name, sha256)), layout.curated(replaced.name, name))
    (folder / CATALOGUE).unlink(missing_ok=True)
    store.replace(folder / "sizes.json", sizes_text(manifest).encode())
    store.replace(folder / "README.md", card(manifest).encode())
    store.replace(path, text)
    newest = path.with_name("manifest.json")
    if newest.exists() and read_manifest(newest).version == replaced.version:
        store.replace(newest, text)
    listed = {Path(name).name for name, _ in _files_of(manifest)}
    for old in [file for pattern in _DATA_FILES for file in folder.glob(pattern)]:
        if old.name not in listed:
            old.unlink()


def _files_of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(path, SHA-256) of the files that a manifest lists."""
    for sample in manifest.samples:
        yield sample.parquet, sample.parquet_sha256
    for shard in manifest.shards:
        yield shard.parquet, shard.parquet_sha256
        if shard.tar is not None:
            yield shard.tar, str(shard.tar_sha256)


def _write_catalogues(store: Store) -> None:
    """Write the catalogue of every version anew: it names ledgers and parts, which others share."""
    for path in manifests(store):
        chosen = Chosen(path, read_manifest(path))
        (chosen.folder / chosen.manifest.version / CATALOGUE).unlink(missing_ok=True)
        write_catalogue(store, chosen, ledger_files(store, chosen))


def _remove_old(store: Store, names: set[str]) -> None:
    """Remove the old files, and what a run that did not end has linked to them."""
    old = [path for path in map(store.path, sorted(names)) if path.exists()]
    inodes = {path.stat().st_ino for path in old}
    for link in store.path("curated").glob("*/*/*"):
        if link.is_file() and link.stat().st_ino in inodes:
            link.unlink()
    for path in old:
        path.unlink()


def _record(store: Store, plan: PurgePlan) -> None:
    said = {"files": len(plan.old), "at": time.time(), "versions": {}}
    for one in plan.versions:
        path = store.path(layout.curated(one.name, f"{one.version}.json"))
        said["versions"][f"{one.name}@{one.version}"] = {"was": one.was, "is": file_sha256(path)}  # type: ignore[index]
    number = 0
    while not store.put(layout.purge(number), said):
        number += 1


def _remove_left_over(store: Store) -> None:
    """Remove what killed processes left half-written; nobody else uses the store now."""
    for path in store.path("tmp").glob("*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
