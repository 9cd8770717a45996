"""What a finished data set is: shards with rows, bytes and digests, columns, the funnel, and what it was made by."""

import difflib
import glob
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import InputError

FORMAT = 1


def _inside(path: str) -> str:
    """A path that cannot lead out of the manifest's folder; manifests may come from strangers."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise ValueError(f"{path!r} does not lie in the manifest's folder")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnEntry(_Frozen):
    """A column: its name, its Arrow type in words, what it means, and the step that adds it (`source`: none does).

    `in_shards` is false for one that stands in the samples only.
    """

    name: str
    type: str
    meaning: str
    step: str = "source"
    in_shards: bool = True


class Lineage(_Frozen):
    """What a version was made from: the source, its snapshot, and the files that steps compare with, by digest."""

    source: Mapping[str, Any]
    snapshot: str
    against: Mapping[str, tuple[Sha256, ...]] = {}


class ShardEntry(_Frozen):
    """A shard; paths are relative to the manifest's folder. `tar` is null where the set has no pictures."""

    tar: RelativePath | None
    parquet: RelativePath
    rows: Count
    tar_sha256: Sha256 | None
    parquet_sha256: Sha256
    tar_bytes: Count | None
    parquet_bytes: Count
    holdout: bool = False
    redacted: Count = 0  # pairs that were taken out after it was written: so many are missing of its full length

    @model_validator(mode="after")
    def _whole_tar(self) -> Self:
        if len({value is None for value in (self.tar, self.tar_sha256, self.tar_bytes)}) > 1:
            raise ValueError("tar, tar_sha256 and tar_bytes are given together or not at all")
        return self


class SampleEntry(_Frozen):
    """A file of the wide table: every row of the source snapshot with its signals and its fate."""

    parquet: RelativePath
    rows: Count
    parquet_sha256: Sha256
    parquet_bytes: Count


class FunnelEntry(_Frozen):
    """Rows into and out of one step, and why the others did not pass."""

    step: str
    kind: str
    rows_in: Count
    rows_out: Count
    reason: str = ""


class Manifest(_Frozen):
    """One version of a curated set. Nothing in it knows a time, a host or a path outside its folder."""

    format: int = FORMAT
    name: str
    version: str
    rows: Count
    pool: Count
    columns: tuple[ColumnEntry, ...]
    shards: tuple[ShardEntry, ...]
    samples: tuple[SampleEntry, ...]
    funnel: tuple[FunnelEntry, ...]
    spec: Mapping[str, Any]
    operators: Mapping[str, str]
    lineage: Lineage | None = None
    decisions: Mapping[str, Mapping[str, Any]] = {}  # by step: pairs found, components, recall …
    evaluations: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        counted = sum(shard.rows for shard in self.shards)
        if counted != self.rows:
            raise ValueError(f"its shards have {counted:,} rows, it says {self.rows:,}")
        return self

    @property
    def training_shards(self) -> tuple[ShardEntry, ...]:
        """The shards that are not held out."""
        return tuple(shard for shard in self.shards if not shard.holdout)

    @property
    def holdout_shards(self) -> tuple[ShardEntry, ...]:
        """The shards kept apart for evaluation."""
        return tuple(shard for shard in self.shards if shard.holdout)


def read_manifest(path: Path | str) -> Manifest:
    """The manifest in that file. Raises InputError with what is wrong and what to do."""
    path = Path(path)
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"manifest {path}: there is no such file; a run writes it when it has finished") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"manifest {path}: cannot be read ({error})") from error
    if isinstance(record, dict) and isinstance(record.get("format"), int) and record["format"] > FORMAT:
        raise InputError(
            f"manifest {path}: has format {record['format']}, this program reads up to {FORMAT}; update it"
        )
    try:
        return Manifest.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(piece) for piece in first["loc"]) or "as a whole"
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"manifest {path}: is no manifest of a curated set ({where}: {said})") from error


def find_manifest(name: str) -> Path:
    """The manifest file of a set by its folder or file, or of one version of it as `folder@version`."""
    path, version = Path(name), ""
    if not path.exists() and "@" in path.name:
        bare, _, version = name.rpartition("@")
        path = Path(bare)
    if path.is_file() and not version:
        return path
    if not path.is_dir():
        raise InputError(f"data set {name}: there is no folder {path}; name the folder of a curated set{_near(path)}")
    file = path / (f"{version}.json" if version else "manifest.json")
    if not file.is_file():
        found = sorted(p.stem for p in path.glob("*.json") if p.stem != "manifest" and (path / p.stem).is_dir())
        there = f"it has the versions {', '.join(found)}" if found else "it has no finished version"
        raise InputError(f"data set {name}: there is no {file.name} in {path}; {there}")
    return file


def find_manifests(name: str) -> list[Path]:
    """As `find_manifest`; a name with `*`, `?` or `[` stands for every set that it matches, in order of name."""
    if not glob.has_magic(name):
        return [find_manifest(name)]
    paths = [Path(found) for found in sorted(glob.glob(name, recursive=True))]
    sets = [path for path in paths if path.suffix == ".json" or (path / "manifest.json").is_file()]
    if not sets:
        raise InputError(f"data sets {name}: nothing matches; name folders of curated sets")
    return [find_manifest(str(path)) for path in sets]


def newest_version(manifest: Path) -> Path:
    """The file of the version behind a `manifest.json`, which the next run replaces; other files stand for themselves.

    Who records what it read, records this one.
    """
    version = manifest.with_name(f"{read_manifest(manifest).version}.json")
    return version if version.is_file() else manifest


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir() if p.is_dir()], 1)
    return f"; did you mean {path.parent / names[0]}?" if names else ""
