"""What a purge will replace: every file that holds something of a forgotten row gets a copy without it.

The copies are in the store before anything is replaced; the plan, put as one record, is all that a purge which was
killed needs to go on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from curation.forget.redactor import Redactor
from curation.forget.tombstones import FORGET, REASON, Tombstones
from curation.storage import layout
from curation.storage.pool import read_pool
from curation.storage.store import FileRef, Store, file_sha256
from schemas.manifest import Manifest, SampleEntry, ShardEntry, read_manifest

BLOB = re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}\.[a-z]+")  # a file with data, where a record lists it
_REDACTED_BEFORE = re.compile(r"-[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class Replaced:
    """A version's manifest with redacted shards; `was` is the SHA-256 of the file that it takes the place of."""

    name: str
    version: str
    was: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class PurgePlan:
    """Copies of old files (see Redactor.copies), and manifests that take the place of old ones."""

    copies: dict[str, dict[str, FileRef]]
    versions: tuple[Replaced, ...]
    digests: dict[str, dict[str, str]]  # of a source's columns in a part before, by the old file (see ingest.Member)

    def record(self) -> dict[str, Any]:
        """The plan as a record."""
        copies = {part: {name: ref.record() for name, ref in own.items()} for part, own in self.copies.items()}
        return {"copies": copies, "versions": [vars(version) for version in self.versions], "digests": self.digests}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "PurgePlan":
        """The plan of a record."""
        copies = {part: {name: FileRef(**ref) for name, ref in own.items()} for part, own in record["copies"].items()}
        return cls(copies, tuple(Replaced(**version) for version in record["versions"]), record["digests"])

    @property
    def old(self) -> set[str]:
        """The names of the old files."""
        return {name for own in self.copies.values() for name in own}

    def copies_for(self, part: str) -> dict[str, FileRef]:
        """The copies of what records of a part list."""
        return self.copies.get("", {}) | self.copies.get(part, {})


def plan_purge(store: Store, tombstones: Tombstones) -> PurgePlan:
    """Write the redacted copies of all that is touched."""
    redactor = Redactor(store, tombstones)
    rows = {part.name: redactor.part(part.file) for part in read_pool(store).parts}
    hit = {part: gone_N for part, gone_N in rows.items() if gone_N.any()}
    _snapshots(store, redactor, hit)
    touched = _touched_tars(store, redactor, hit)
    for name in sorted(touched):
        redactor.pool_tar(_ref_of(store, name))
    for _, record in records(store, "captures"):
        redactor.captured(FileRef(**record["rows"]))
    for _, record in records(store, "robots"):
        redactor.sites(FileRef(**record["file"]))
    _sidecars(store, redactor, rows, touched)
    replaced = tuple(_versions(store, redactor))
    _plans(store, redactor, hit)
    return PurgePlan(redactor.copies, replaced, redactor.digests)


def records(store: Store, folder: str, pattern: str = "**/*.json") -> Iterator[tuple[str, Any]]:
    """The records in a folder of the store: (name, record)."""
    for path in sorted(store.path(folder).glob(pattern)):
        name = str(path.relative_to(store.root))
        yield name, store.get(name)


def _snapshots(store: Store, redactor: Redactor, hit: dict[str, np.ndarray]) -> None:
    for _, record in records(store, "snapshots"):
        redactor.rejected(FileRef(**record["rejected"]))
        for member in record["parts"]:
            part = member["part"]["name"]
            if part in hit:
                redactor.members(FileRef(**member["file"]), hit[part], part)


def _touched_tars(store: Store, redactor: Redactor, hit: dict[str, np.ndarray]) -> set[str]:
    """The tars of the pool in which pictures of forgotten rows lie."""
    touched: set[str] = set()
    for part, gone_N in hit.items():
        for _, record in records(store, f"commits/{part}"):
            if record["locations"]:
                touched |= redactor.tars_of(FileRef(**record["locations"]), gone_N)
    for _, record in records(store, "captures"):
        touched |= redactor.captured_tars(FileRef(**record["rows"]))
    return touched


def _sidecars(store: Store, redactor: Redactor, rows: dict[str, np.ndarray], touched: set[str]) -> None:
    for part, gone_N in rows.items():
        for _, record in records(store, f"commits/{part}") if touched or gone_N.any() else ():
            if gone_N.any():
                redactor.values(FileRef(**record["values"]), gone_N, part)
                for ledger in record["ledgers"]:
                    redactor.ledger(FileRef(**ledger))
            if record["locations"] and (gone_N.any() or touched & {tar["name"] for tar in record["tars"]}):
                redactor.locations(FileRef(**record["locations"]), gone_N, part)


def _versions(store: Store, redactor: Redactor) -> Iterator[Replaced]:
    for path in manifests(store):
        manifest = read_manifest(path)
        shards = tuple(_shard(redactor, path.parent, shard) for shard in manifest.shards)
        samples = tuple(_sample(redactor, path.parent, sample) for sample in manifest.samples)
        if (shards, samples) != (manifest.shards, manifest.samples):
            new = _counted(store, path.parent, manifest.model_copy(update={"shards": shards, "samples": samples}))
            yield Replaced(manifest.name, manifest.version, file_sha256(path), new.model_dump(mode="json"))


def manifests(store: Store) -> list[Path]:
    """The manifests of all versions, those included whose run was killed before it was noted as finished."""
    found = store.path("curated").glob("*/*.json")
    return sorted(path for path in found if path.name != "manifest.json" and not path.name.startswith("."))


def is_shard_record(name: str) -> bool:
    """Whether a plan's record tells of a written shard."""
    return Path(name).name.startswith(("shard-", "holdout-"))


def _shard(redactor: Redactor, folder: Path, shard: ShardEntry) -> ShardEntry:
    old = _ref(shard.parquet, shard.parquet_sha256, shard.parquet_bytes)
    gone = redactor.shard(old, folder / shard.parquet)
    if not gone:
        return shard
    parquet = redactor.copy_of(old)
    change: dict[str, Any] = {"parquet": _renamed(shard.parquet, parquet), "parquet_sha256": parquet.sha256}
    change |= {"parquet_bytes": parquet.bytes, "rows": shard.rows - gone, "redacted": shard.redacted + gone}
    if shard.tar is not None:
        old_tar = _ref(shard.tar, str(shard.tar_sha256), shard.tar_bytes or 0)
        redactor.shard_tar(old_tar, folder / shard.tar)
        tar = redactor.copy_of(old_tar)
        change |= {"tar": _renamed(shard.tar, tar), "tar_sha256": tar.sha256, "tar_bytes": tar.bytes}
    return shard.model_copy(update=change)


def _sample(redactor: Redactor, folder: Path, sample: SampleEntry) -> SampleEntry:
    old = _ref(sample.parquet, sample.parquet_sha256, sample.parquet_bytes)
    redactor.samples(old, folder / sample.parquet)
    new = redactor.copy_of(old)
    if new == old:
        return sample
    change = {"parquet": _renamed(sample.parquet, new), "parquet_sha256": new.sha256, "parquet_bytes": new.bytes}
    return sample.model_copy(update=change)


def _counted(store: Store, folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with the rows of its shards and the funnel of its samples: what is forgotten ended at the source."""
    there = [(folder / s.parquet, store.path(blob_of(s.parquet, s.parquet_sha256))) for s in manifest.samples]
    files = [str(old if old.exists() else copy) for old, copy in there]  # a copy has not got its name yet
    with duckdb.connect(":memory:") as connection:
        query = "SELECT fate_step, count(*) FROM read_parquet($files) GROUP BY fate_step"
        ended = dict(connection.execute(query, {"files": files}).fetchall())
    alive, funnel = manifest.pool, []
    for place, entry in enumerate(manifest.funnel):
        gone = ended.get(entry.step, 0) + (0 if place else ended.get(FORGET, 0))
        rows = {"rows_out": alive - gone} | ({"rows_in": alive} if place else {})
        reason = entry.reason if place else f"{ended.get(FORGET, 0):,} {REASON}"
        funnel.append(entry.model_copy(update=rows | {"reason": reason}))
        alive -= gone
    return manifest.model_copy(update={"rows": sum(s.rows for s in manifest.shards), "funnel": tuple(funnel)})


def _plans(store: Store, redactor: Redactor, hit: dict[str, np.ndarray]) -> None:
    """What plans noted of rows, and have written that is in no version: of runs that did not end, or were pruned."""
    for name, record in records(store, "plans"):
        if is_shard_record(name):
            if redactor.shard(FileRef(**record["parquet"])) and record["tar"]:
                redactor.shard_tar(FileRef(**record["tar"]))
        elif "fates" in record and (snapshot := store.get(layout.snapshot(record.get("snapshot", "")))):
            parts = [member["part"] for member in snapshot["parts"]]
            if not hit.keys().isdisjoint(part["name"] for part in parts):
                gone_N = np.concatenate([hit.get(part["name"], np.zeros(part["rows"], bool)) for part in parts])
                redactor.fates(FileRef(**record["fates"]), gone_N)
        elif Path(name).name == "samples.json":
            for ref, _ in record:
                redactor.samples(FileRef(**ref))


def blob_of(path: str, sha256: str) -> str:
    """The name in the store of a version's file."""
    return layout.blob(sha256, Path(path).suffix)


def _ref(path: str, sha256: str, size_bytes: int) -> FileRef:
    return FileRef(blob_of(path, sha256), size_bytes, sha256)


def _ref_of(store: Store, name: str) -> FileRef:
    return FileRef(name, store.path(name).stat().st_size, Path(name).stem)


def _renamed(path: str, copy: FileRef) -> str:
    """Another name for a redacted file, so that the old manifest and the new one are both whole until the old goes."""
    old = Path(path)
    return str(old.with_name(f"{_REDACTED_BEFORE.sub('', old.stem)}-{copy.sha256[:8]}{old.suffix}"))
