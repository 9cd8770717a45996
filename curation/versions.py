"""Finished versions of curated sets: which there are, what they are tagged, and which one a text means.

Nothing here lists a folder: runs are numbered from 0, tags of a set too, and a record tells of each.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.storage import layout
from curation.storage.store import Store
from schemas.errors import InputError
from schemas.manifest import Manifest, read_manifest

_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]*\Z")
_VERSION = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class RunRecord:
    """A run in the order of start; `version` and `finished_at` (seconds since 1970) are None where it has not ended."""

    number: int
    name: str
    plan: str
    version: str | None
    finished_at: float | None


@dataclass(frozen=True)
class Version:
    """One finished version that can be read."""

    name: str
    version: str
    rows: int
    pool: int
    tags: tuple[str, ...]
    newest: bool
    finished_at: float | None
    path: Path

    def record(self) -> dict[str, Any]:
        """The version as JSON values."""
        shown = {key: getattr(self, key) for key in ("name", "version", "rows", "pool", "newest", "finished_at")}
        return shown | {"tags": list(self.tags), "manifest": str(self.path)}


@dataclass(frozen=True)
class Chosen:
    """The version that a text names, opened."""

    path: Path
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """The folder that the manifest's paths are relative to."""
        return self.path.parent

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.manifest.name}@{self.manifest.version}"


def read_pace(store: Store, stage: str) -> tuple[float, int] | None:
    """Rows per second at which the last run that worked on a stage did it, and that run's number."""
    found = None
    for run in _runs(store):
        pace = (store.get(layout.finished(run.number)) or {}).get("paces", {}).get(stage)
        if pace and pace["rows"] and pace["seconds"]:
            found = pace["rows"] / pace["seconds"], run.number
    return found


def read_runs(store: Store) -> list[RunRecord]:
    """Every run that was ever started on the store, in that order."""
    return list(_runs(store))


def _runs(store: Store) -> Iterator[RunRecord]:
    number = 0
    while (started := store.get(layout.run(number))) is not None:
        ended = store.get(layout.finished(number)) or {}
        yield RunRecord(number, started["name"], started["plan"], ended.get("version"), ended.get("at"))
        number += 1


def names(store: Store) -> list[str]:
    """The sets that have a version to read, by name."""
    return sorted({name for name, version in _finished(store) if _path(store, name, version).exists()})


def versions(store: Store, name: str) -> list[Version]:
    """The versions of a set that can be read, newest first. Raises InputError for a set that is not there."""
    runs = [run for run in _runs(store) if run.name == name and run.version is not None]
    last = {run.version: run for run in runs}  # the same version again: its last run counts
    ordered = sorted(last.values(), key=lambda run: run.number, reverse=True)
    there = [run for run in ordered if _path(store, name, str(run.version)).exists()]
    if not there:
        raise InputError(f"data set {name!r}: the store {store.root} has no finished version of it; {_sets(store)}")
    tags = read_tags(store, name)
    found = []
    for place, run in enumerate(there):
        path = _path(store, name, str(run.version))
        manifest = read_manifest(path)
        own = tuple(sorted(tag for tag, version in tags.items() if version == run.version))
        found.append(
            Version(name, manifest.version, manifest.rows, manifest.pool, own, place == 0, run.finished_at, path)
        )
    return found


def resolve(store: Store, text: str | None = None) -> Chosen:
    """The version that `name`, `name@version`, `name@tag` or `name@start-of-version` means; None: the only set."""
    if text is None:
        text = _only_name(store)
    name, _, wanted = text.partition("@")
    there = versions(store, name)
    found = there[:1] if not wanted else _matching(there, read_tags(store, name), wanted)
    if len(found) != 1:
        raise InputError(f"{text}: {_not_one(name, wanted, found, there)}")
    return Chosen(found[0].path, read_manifest(found[0].path))


def read_tags(store: Store, name: str) -> dict[str, str]:
    """The tags of a set: tag → version."""
    return {record["tag"]: record["version"] for record in _tag_records(store, name)}


def tag(store: Store, text: str, new: str) -> Chosen:
    """Tag a version for good. Raises InputError where the tag names another version."""
    if not _TAG.match(new) or _VERSION.match(new):
        raise InputError(
            f"tag {new!r}: a tag has lower-case letters, digits, '_', '.' and '-', and is no version; try 'v1'"
        )
    chosen = resolve(store, text)
    name, version = chosen.manifest.name, chosen.manifest.version
    while True:
        tags = read_tags(store, name)
        if new in tags:
            if tags[new] == version:
                return chosen
            raise InputError(
                f"tag {new!r}: names {name}@{tags[new]} already, and a tag is never moved; choose another tag"
            )
        # Numbered, so that tags are found without listing a folder; who loses the put reads the chain again.
        store.put(_tag_record(name, len(tags)), {"tag": new, "version": version})


def _tag_records(store: Store, name: str) -> Iterator[dict[str, str]]:
    number = 0
    while (record := store.get(_tag_record(name, number))) is not None:
        yield record
        number += 1


def _tag_record(name: str, number: int) -> str:
    return layout.curated(name, f"tags/{number:06d}.json")


def _matching(there: list[Version], tags: dict[str, str], wanted: str) -> list[Version]:
    exact = [v for v in there if v.version in (wanted, tags.get(wanted))]
    return exact or [v for v in there if v.version.startswith(wanted)]


def _not_one(name: str, wanted: str, found: list[Version], there: list[Version]) -> str:
    shown = ", ".join(v.version + (f" ({', '.join(v.tags)})" if v.tags else "") for v in found or there)
    if found:
        return f"several versions of {name} start with {wanted!r}: {shown}; write more of it"
    return f"{name} has no version or tag {wanted!r}; it has {shown}"


def _only_name(store: Store) -> str:
    found = names(store)
    if len(found) == 1:
        return found[0]
    raise InputError(f"store {store.root}: {_sets(store)}" + ("; say which with --name" if found else ""))


def _sets(store: Store) -> str:
    found = names(store)
    if not found:
        return "it has no finished data set; a run makes one: pairmill run SPEC"
    return f"it has the data sets {', '.join(found)}" if len(found) > 1 else f"it has the data set {found[0]}"


def _finished(store: Store) -> set[tuple[str, str]]:
    return {(run.name, run.version) for run in _runs(store) if run.version is not None}


def _path(store: Store, name: str, version: str) -> Path:
    return store.path(layout.curated(name, f"{version}.json"))
