"""Whether a finished version is what its manifest says, read from the first byte to the last.

files     every file's length and SHA-256; a tar's keys are its Parquet's, in order   (here)
rows      every key once, every row one fate, the funnel's counts, curated = shards   (curation/verify_rows.py)
views     its catalogue counts as the manifest does   (curation/analytics/catalogue.py)
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from curation.analytics.catalogue import catalogue_errors
from curation.verify_rows import check_rows, read_keys
from schemas.manifest import Manifest, ShardEntry, read_manifest
from schemas.shard import ShardError, read_shard

_CHUNK_BYTES = 1 << 20
_SHOWN_ERRORS = 50

Progress = Callable[[int, int], None]  # bytes read, bytes in all


@dataclass
class Report:
    """What was read, and every error found."""

    manifest: str
    files: int = 0
    bytes: int = 0
    rows: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    @property
    def exit_code(self) -> int:
        """0 where nothing is wrong, else 1."""
        return 0 if self.ok else 1

    def record(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"ok": self.ok} | asdict(self)

    def text(self) -> str:
        """The report for people."""
        read = f"{self.files:,} files, {self.bytes:,} bytes, {self.rows:,} rows"
        if self.ok:
            return f"{self.manifest}: sound ({read})"
        more = [f"and {len(self.errors) - _SHOWN_ERRORS:,} more"] if len(self.errors) > _SHOWN_ERRORS else []
        lines = self.errors[:_SHOWN_ERRORS] + more
        return "\n".join([f"{self.manifest}: damaged ({read})", *(f"  {line}" for line in lines)])


def verify(manifest_path: Path | str, progress: Progress | None = None) -> Report:
    """Check every file, key, fate and count of a version. Raises InputError where there is no manifest to read."""
    path = Path(manifest_path)
    path = path / "manifest.json" if path.is_dir() else path
    manifest = read_manifest(path)
    report = Report(str(path))
    files = _Files(path.parent, manifest, report, progress or (lambda done, total: None))
    for sample in manifest.samples:
        files.check(sample.parquet, sample.parquet_bytes, sample.parquet_sha256)
    for shard in manifest.shards:
        files.check(shard.parquet, shard.parquet_bytes, shard.parquet_sha256)
        files.check_keys(shard)
    if manifest.shards:
        files.check_columns(manifest, manifest.shards[0].parquet)
    report.rows = check_rows(path.parent, manifest, report.errors)
    _check_sizes(path.parent, manifest, report.errors)
    report.errors += catalogue_errors(path.parent, manifest)
    return report


class _Files:
    """Reads the files of a version; errors go to the report."""

    def __init__(self, folder: Path, manifest: Manifest, report: Report, progress: Progress) -> None:
        self._folder = folder
        self._report = report
        self._progress = progress
        self._total = sum(sample.parquet_bytes for sample in manifest.samples)
        self._total += sum(shard.parquet_bytes + (shard.tar_bytes or 0) for shard in manifest.shards)

    def check(
        self,
        name: str,
        length: int | None,
        sha256: str | None,
        read: Callable[["_Hashed"], list[str] | None] = lambda stream: None,
    ) -> list[str] | None:
        """Read a file to its end, by `read` first, and compare its length and digest; return what `read` returned."""
        try:
            with open(self._folder / name, "rb") as stream:
                hashed = _Hashed(stream)
                result = read(hashed)
                while hashed.read(_CHUNK_BYTES):
                    pass
        except OSError as error:
            self._error(f"{name}: cannot be read ({error.strerror}); restore it, or run the specification again")
            return None
        self._report.files += 1
        self._report.bytes += hashed.bytes
        self._progress(self._report.bytes, self._total)
        if hashed.bytes != length:
            self._error(f"{name}: has {hashed.bytes:,} bytes, the manifest says {length:,}")
        elif hashed.sha256 != sha256:
            self._error(f"{name}: has SHA-256 {hashed.sha256}, the manifest says {sha256}")
        return result

    def check_keys(self, shard: ShardEntry) -> None:
        """A shard's Parquet has as many rows as the manifest says, and its tar the same keys in the same order."""
        keys = read_keys(self._folder, shard.parquet, self._report.errors)
        if keys is not None and len(keys) != shard.rows:
            self._error(f"{shard.parquet}: has {len(keys):,} rows, the manifest says {shard.rows:,}")
        if shard.tar is None:
            return
        name = shard.tar
        members = self.check(name, shard.tar_bytes, shard.tar_sha256, lambda stream: self._tar_keys(name, stream))
        if members is not None and keys is not None and members != keys:
            place = next((i for i, pair in enumerate(zip(members, keys, strict=False)) if pair[0] != pair[1]), None)
            where = f"first at row {place}" if place is not None else f"{len(members):,} instead of {len(keys):,} keys"
            self._error(f"{name}: its keys are not those of {shard.parquet} ({where})")

    def check_columns(self, manifest: Manifest, name: str) -> None:
        """A shard's Parquet has the columns that the manifest says shards have."""
        try:
            there = set(pq.read_schema(self._folder / name).names)
        except (OSError, pa.ArrowException):
            return  # which `check` has told
        said = {column.name for column in manifest.columns if column.in_shards}
        if there != said:
            self._error(f"{name}: its columns are not those of the manifest ({', '.join(sorted(there ^ said))})")

    def _tar_keys(self, name: str, stream: "_Hashed") -> list[str] | None:
        try:
            return [sample.key for sample in read_shard(name, cast(BinaryIO, stream))]
        except ShardError as error:
            self._error(str(error))
            return None

    def _error(self, text: str) -> None:
        self._report.errors.append(text)


class _Hashed:
    """A stream that takes the digest of what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> "_Hashed":
        return self

    def __exit__(self, *_: object) -> None:
        """Who opened the file closes it: a reader that gives up leaves the rest to be read."""

    def read(self, count: int = -1) -> bytes:
        """Bytes from the stream."""
        data = self._stream.read(count)
        self._digest.update(data)
        self.bytes += len(data)
        return data

    @property
    def sha256(self) -> str:
        """Digest of what was read, hex."""
        return self._digest.hexdigest()


def _check_sizes(folder: Path, manifest: Manifest, errors: list[str]) -> None:
    """sizes.json, which open_clip's loader reads, says what the manifest says."""
    name = f"{manifest.version}/sizes.json"
    sizes = {Path(shard.tar).name: shard.rows for shard in manifest.training_shards if shard.tar}
    try:
        if json.loads((folder / name).read_bytes()) != sizes:
            errors.append(f"{name}: does not say the rows of the shards as the manifest does")
    except (OSError, ValueError) as error:
        errors.append(f"{name}: cannot be read ({error})")
