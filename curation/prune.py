"""Remove what no kept version needs: with `forget`, the only code that lists folders or looks at a clock.

Kept are, of every set: the newest version, those with a tag, those that a training run uses or another set is compared
`against` (they leave pins), and all that an unfinished plan has made, unless a later
run of its set has finished. Dry run unless told otherwise; holds the store's
lock alone, where runs share it.

Killed anywhere it leaves a store that reads well: a version's manifest goes first, then the records of its plan, its
folder, and last the files that nothing lists any more. The next prune goes on from the run records, which stay.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.forget.unfinished import require_no_unfinished_purge
from curation.stage import CAPTURE
from curation.storage import layout
from curation.storage.store import Store
from curation.versions import read_runs, read_tags
from schemas.manifest import Manifest, read_manifest
from schemas.pins import read_pins

GRACE_S = 3600.0  # a worker that outlived its run may still be about to commit what it wrote
_MADE_BY_PLAN = (
    "stage-*.json",
    "samples.json",
    "ledgers.json",
    "shard-*.json",
    "holdout-*.json",
)  # not a user's decisions


@dataclass
class Pruned:
    """What was removed, or would be; paths are relative to the store."""

    dry_run: bool
    versions: list[str] = field(default_factory=list)  # name@version
    kept: dict[str, str] = field(default_factory=dict)  # name@version → why
    plans: list[str] = field(default_factory=list)
    sidecars: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def text(self) -> str:
        """The outcome for people."""
        lines = [f"kept     {label}: {why}" for label, why in self.kept.items()]
        verb = "would go" if self.dry_run else "removed "
        lines += [f"{verb} {label}" for label in self.versions]
        if self.sidecars:
            lines.append(f"{verb} {len(self.sidecars):,} sidecars that no kept version uses")
        lines.append(f"{verb} {len(self.files):,} files, {self.bytes:,} bytes")
        if self.dry_run and (self.versions or self.sidecars or self.files):
            lines.append("Nothing was removed; write --yes to do it.")
        return "\n".join([*lines, *self.notes])


def prune(store_path: Path | str, *, remove: bool = False, signals: bool = False, grace_s: float = GRACE_S) -> Pruned:
    """Remove old versions and left-over files, or say what would go. Raises StoreError while a run is under way."""
    store = Store.existing(store_path)
    with store.lock(exclusive=True):
        require_no_unfinished_purge(store)  # its plan names versions and files that would go
        return _Prune(store, Pruned(not remove), grace_s).run(signals)


class _Prune:
    """One pruning under the lock."""

    def __init__(self, store: Store, outcome: Pruned, grace_s: float) -> None:
        self._store = store
        self._outcome = outcome
        self._runs = read_runs(store)
        last = {run.plan: run for run in self._runs}
        newest = {run.name: run.number for run in self._runs if run.version is not None}
        # Left behind, not waiting: a later run of the set has finished, after its specification was edited.
        self._unfinished = {
            plan for plan, run in last.items() if run.version is None and run.number > newest.get(run.name, -1)
        }
        self._manifests = {
            (run.name, run.version): read_manifest(self._manifest_path(run.name, run.version))
            for run in self._runs
            if run.version is not None and self._manifest_path(run.name, run.version).exists()
        }
        self._why = self._reasons()
        self._kept = {key: manifest for key, manifest in self._manifests.items() if key in self._why}
        self._removal = _Removal(store, outcome, time.time() - grace_s)

    def run(self, signals: bool) -> Pruned:
        self._outcome.kept = {f"{name}@{version}": self._why[name, version] for name, version in sorted(self._kept)}
        going = sorted({(r.name, r.version) for r in self._runs if r.version is not None} - self._why.keys())
        for name, version in going:
            if (name, version) in self._manifests:
                self._outcome.versions.append(f"{name}@{version}")
                self._removal.file(self._manifest_path(name, version))
        for plan in self._plans_to_go():
            self._remove_plan(plan)
        for name, version in going:
            self._removal.tree(self._store.path(layout.curated(name, version)))
        if signals:
            self._remove_sidecars()
            for path in sorted([*self._store.path("joins").glob("*/*.json"), *self._store.path("captured").glob("*")]):
                self._removal.record(path)
        self._removal.blobs({sha256 for manifest in self._kept.values() for sha256 in _digests(manifest)})
        self._removal.temporary()
        return self._outcome

    def _manifest_path(self, name: str, version: str) -> Path:
        return self._store.path(layout.curated(name, f"{version}.json"))

    def _reasons(self) -> dict[tuple[str, str], str]:
        """Which versions stay, and why."""
        why: dict[tuple[str, str], str] = {}
        newest = {run.name: run.version for run in self._runs if (run.name, run.version) in self._manifests}
        why |= {(name, version): "the newest" for name, version in newest.items() if version is not None}
        for name in {run.name for run in self._runs}:
            pointed = self._store.get(layout.curated(name, "manifest.json"))
            if pointed is not None:  # a run that was killed at its very end has not replaced it
                why.setdefault((name, pointed["version"]), "manifest.json is a copy of it")
            for tag, version in read_tags(self._store, name).items():
                why.setdefault((name, version), f"tagged {tag}")
            for pin in read_pins(self._store.path(f"curated/{name}")):
                shown = pin.path.relative_to(self._store.root)
                why.setdefault((name, pin.version), f"used by {pin.by} ({shown} says so)")
        for run in self._runs:
            if run.version is not None and run.plan in self._unfinished:
                why.setdefault((run.name, run.version), "a run of its plan has not finished")
        return why

    def _plans_to_go(self) -> list[str]:
        """Plans all of whose runs made versions that go."""
        staying = {run.plan for run in self._runs if (run.name, run.version) in self._why} | self._unfinished
        return sorted({run.plan for run in self._runs} - staying)

    def _remove_plan(self, plan: str) -> None:
        """Remove what a plan made; a user's decisions (retry, give up) stay."""
        folder = self._store.path(f"plans/{plan}")
        records = sorted(path for pattern in _MADE_BY_PLAN for path in folder.glob(pattern))
        if records:
            self._outcome.plans.append(plan)
        for path in records:
            self._removal.record(path)

    def _remove_sidecars(self) -> None:
        """Remove sidecars that neither a kept version nor an unfinished plan uses; what is in doubt stays."""
        if self._unfinished:
            self._outcome.notes.append(
                "Sidecars stay: a run has not finished, and which of them it uses is not on record; finish it first."
            )
            return
        there = sorted(self._store.path("commits").glob("*/*"))
        used, doubtful = self._used_sidecars({_sidecar_of(folder) for folder in there})
        for folder in there:
            operator, fingerprint = _sidecar_of(folder)
            if operator == CAPTURE or operator in doubtful or (operator, fingerprint) in used:
                continue
            self._outcome.sidecars.append(str(folder.relative_to(self._store.root)))
            # The newest generation goes first: what is left of a chain is sound wherever this is killed.
            for path in sorted(folder.glob("*.json"), reverse=True):
                self._removal.record(path)

    def _used_sidecars(self, there: set[tuple[str, str]]) -> tuple[set[tuple[str, str]], set[str]]:
        """(operator, start of fingerprint) of kept versions; and operators whose sidecars cannot be told apart.

        An operator that reads what rides along with the source has another fingerprint in every part: no sidecar has
        the one that the manifest names.
        """
        used = set()
        for manifest in self._kept.values():
            kinds = {entry.step: entry.kind for entry in manifest.funnel}
            used |= {(kinds[label], fp[:16]) for label, fp in manifest.operators.items() if label in kinds}
        return used, {operator for operator, fingerprint in used if (operator, fingerprint) not in there}


class _Removal:
    """Removes files, or in a dry run notes which would go."""

    def __init__(self, store: Store, outcome: Pruned, oldest_kept: float) -> None:
        self._store = store
        self._outcome = outcome
        self._oldest_kept = oldest_kept  # seconds since 1970
        self._listed_before: set[str] = set()  # blobs that removed records had listed
        self._gone: set[Path] = set()
        self._links_gone: Counter[int] = Counter()  # by inode

    def file(self, path: Path) -> None:
        """Remove one file; its bytes count when its last link goes."""
        state = path.stat()
        self._outcome.files.append(str(path.relative_to(self._store.root)))
        if self._links_left(state) == 1:
            self._outcome.bytes += state.st_size
        self._gone.add(path)
        self._links_gone[state.st_ino] += 1
        if not self._outcome.dry_run:
            path.unlink()

    def record(self, path: Path) -> None:
        """Remove a record; what it alone lists goes with the blobs."""
        self._listed_before.update(_blobs_in(path))
        self.file(path)

    def tree(self, folder: Path) -> None:
        """Remove a folder with all that is in it."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.file(path)
        if not self._outcome.dry_run:
            shutil.rmtree(folder, ignore_errors=True)

    def blobs(self, linked: set[str]) -> None:
        """Remove data that no record lists and no kept version has (`linked`: digests of its files)."""
        records = (path for folder in layout.REFERRING for path in self._store.path(folder).rglob("*.json"))
        listed = {name for path in records if path not in self._gone for name in _blobs_in(path)}
        for path in sorted(self._store.path("blobs").glob("*/*")):
            name, state = str(path.relative_to(self._store.root)), path.stat()
            if name in listed or path.stem in linked or self._links_left(state) > 1:
                continue
            was_used = name in self._listed_before or state.st_ino in self._links_gone
            if was_used or state.st_mtime < self._oldest_kept:
                self.file(path)

    def temporary(self) -> None:
        """Remove what killed processes left behind."""
        half_written = self._store.path("curated").glob("*/.manifest-*.json")
        for path in sorted([*self._store.path("tmp").glob("*"), *half_written]):
            if path.stat().st_mtime < self._oldest_kept:
                self.tree(path) if path.is_dir() else self.file(path)

    def _links_left(self, state: os.stat_result) -> int:
        return state.st_nlink - (self._links_gone[state.st_ino] if self._outcome.dry_run else 0)


def _sidecar_of(folder: Path) -> tuple[str, str]:
    """Operator and start of the fingerprint of a sidecar's folder."""
    operator, _, fingerprint = folder.name.rpartition("-")
    return operator, fingerprint


def _blobs_in(path: Path) -> Iterator[str]:
    """Every file with data that a record names."""
    return (text for text in _strings(json.loads(path.read_bytes())) if text.startswith("blobs/"))


def _digests(manifest: Manifest) -> Iterable[str]:
    """Digests of the files that a kept version lists."""
    return (text for text in _strings(manifest.model_dump()) if len(text) == 64)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
