"""The sets of a comparison as they were named: specifications to run, or finished versions; all of one pool."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.job import Job, source_identity
from curation.storage import layout
from curation.storage.store import Store
from curation.versions import read_runs, resolve
from flows.commands.verb import find_store
from flows.one_run import ExecutorName, Request
from flows.progress import Progress
from schemas.errors import InputError
from schemas.manifest import Manifest, find_manifest, newest_version, read_manifest

SPECS = (".yaml", ".yml")


@dataclass(frozen=True)
class SetsAsked:
    """The sets of a comparison, and how those are run that are specifications."""

    sets: tuple[str, ...]
    store: str | None = None
    limit: int | None = None
    executor: ExecutorName = "ray"
    ray_address: str | None = None

    def request(self, spec: str) -> Request:
        """The run of one of them."""
        return Request(spec, self.store, self.limit, executor=self.executor, ray_address=self.ray_address)


@dataclass(frozen=True)
class NamedSet:
    """One of the sets: as it was written, its name, what decides its pool, and the file of its version if there is."""

    text: str
    name: str
    pool: Mapping[str, Any]
    manifest: Path | None = None


def open_sets(asked: SetsAsked) -> tuple[Path, list[NamedSet]]:
    """The store, and the sets in their order, checked as far as can be known. Raises InputError."""
    if len(asked.sets) < 2:
        raise InputError("compare: name two sets or more: specifications of curation, or finished sets")
    jobs = {text: asked.request(text).open_job(Progress()) for text in asked.sets if text.endswith(SPECS)}
    store = _store_of(asked, {text: job.store_path for text, job in jobs.items()})
    found = [_of_job(text, jobs[text]) if text in jobs else _finished(text, store) for text in asked.sets]
    for number, one in enumerate(found):
        for before in found[:number]:
            _refuse_unlike(before, one)
    return store, found


def curation_s(store: Path, manifest: Path) -> float | None:
    """Seconds that the runs which came to a version of the store spent in stages with workers, as far as recorded.

    What another set's run had computed before is not among them. None where nothing is recorded.
    """
    if not manifest.absolute().is_relative_to(store):
        return None
    opened = Store.existing(store)
    made = (manifest.parent.name, manifest.stem)
    runs = [run.number for run in read_runs(opened) if (run.name, run.version) == made]
    paces = [pace for number in runs for pace in (opened.get(layout.finished(number)) or {}).get("paces", {}).values()]
    return round(sum(pace["seconds"] for pace in paces), 3) if paces else None


def _store_of(asked: SetsAsked, stores: Mapping[str, Path]) -> Path:
    """The one store of all specifications; without any, the store that was named, or that names are looked up in."""
    if not stores:
        by_name = [text for text in asked.sets if not _is_path(text)]
        return (find_store(asked.store) if asked.store or by_name else Path("data")).absolute()
    first, store = next(iter(stores.items()))
    for text, other in stores.items():
        if other != store:
            raise InputError(
                f"compare: {first} has its store in {store}, {text} in {other}: pictures there were fetched at other "
                "times; name one store for all of them with --store"
            )
    return store


def _is_path(text: str) -> bool:
    return "/" in text or Path(text).exists()


def _of_job(text: str, job: Job) -> NamedSet:
    if job.spec.shards.format != "webdataset":
        raise InputError(
            f"compare: {text} writes no pictures (shards.format is {job.spec.shards.format}), so nothing can be "
            "trained on it; curate it with format: webdataset"
        )
    identity = source_identity(job.spec, job.source, job.wishes.limit)
    return NamedSet(text, job.spec.name, _pool(identity))


def _finished(text: str, store: Path) -> NamedSet:
    """A set by the folder or file of its manifest, or by `name`, `name@version` or `name@tag` in the store."""
    if _is_path(text):
        path = newest_version(find_manifest(text))
        manifest = read_manifest(path)
    else:
        chosen = resolve(Store.existing(store), text)
        path, manifest = chosen.path, chosen.manifest
    name = f"{manifest.name}@{manifest.version}" if "@" in text else manifest.name
    return NamedSet(text, name, _pool(_source_of(manifest, text)), path)


def _source_of(manifest: Manifest, text: str) -> Mapping[str, Any]:
    if manifest.lineage is None:
        raise InputError(f"compare: {text} does not say which pool it was selected from; run its specification again")
    return manifest.lineage.source


def _pool(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which rows a pool has: columns that merely ride along, and arrays beside a table, do not."""
    columns = identity["columns"]
    decides = {
        "source": identity["files"],
        "column of URLs": columns.get("url", "url"),
        "column of captions": columns.get("caption", "caption"),
        "--limit": identity["limit"],
    }
    read: dict[str, Any] = json.loads(json.dumps(decides))  # as a manifest holds it
    return read


def _refuse_unlike(one: NamedSet, other: NamedSet) -> None:
    differing = [name for name in one.pool if one.pool[name] != other.pool[name]]
    if differing:
        shown = "; ".join(f"{name}{_shown(one.pool[name], other.pool[name])}" for name in differing)
        raise InputError(
            f"compare: {one.text} and {other.text} select from different pools (another {shown}); "
            "sets are compared where they are selections of one pool"
        )
    if one.name == other.name:
        raise InputError(
            f"compare: {one.text} and {other.text} are both called {one.name!r}; give one of them another `name`"
        )


def _shown(one: Any, other: Any) -> str:
    """Both values, where they are short enough to tell something."""
    return "" if isinstance(one, list) else f": {one} and {other}"
