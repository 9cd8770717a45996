"""The other side of a comparison: Parquet files or manifests of curated sets, pinned by digest before anything runs."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.selection.step import DatasetStep
from curation.stage import Plan, SelectionStep
from curation.storage.store import file_sha256
from schemas.columns import KEY
from schemas.errors import InputError
from schemas.manifest import read_manifest


@dataclass(frozen=True)
class Pinned:
    """One Parquet file to compare with."""

    path: Path
    sha256: str


def pin_against(plan: Plan, own_name: str) -> list[Any]:
    """Digests of everything that the plan's steps compare with, in the steps' order. Raises InputError."""
    pinned = []
    for step in plan.steps:
        if isinstance(step, SelectionStep) and getattr(step.step, "against", None):
            files = against_files(step.step, own_name)
            for file in files:
                _require_columns(file, step)
            pinned.append([step.index, [file.sha256 for file in files]])
    return pinned


def against_files(step: DatasetStep, own_name: str = "") -> list[Pinned]:
    """The Parquet files behind a step's `against`; those of a curated set are the shards of one version."""
    against = getattr(step, "against", None) or []
    files: list[Pinned] = []
    for pattern in [against] if isinstance(against, str) else against:
        for path in _paths(pattern):
            files += _of_manifest(path, own_name) if path.suffix == ".json" or path.is_dir() else [_of_file(path)]
    return files


def load_against(step: DatasetStep) -> Sequence[pa.Table]:
    """The tables to compare with: key (NULL where a file has none), file, row, and the columns asked for."""
    wanted = step.against_columns
    tables = []
    for pinned in against_files(step):
        names = pq.read_schema(pinned.path).names
        table = pq.read_table(pinned.path, columns=[*wanted.values(), *([KEY.name] if KEY.name in names else [])])
        keys = table[KEY.name] if KEY.name in names else pa.nulls(table.num_rows, pa.string())
        columns: dict[str, Any] = {KEY.name: keys}
        columns["file"] = pa.array([pinned.path.name] * table.num_rows, pa.string())
        columns["row"] = pa.array(range(table.num_rows), pa.int64())
        tables.append(pa.table(columns | {alias: table[name] for alias, name in wanted.items()}))
    return tables


def _paths(pattern: str) -> list[Path]:
    found = [Path(p) for p in sorted(glob.glob(pattern))] if glob.has_magic(pattern) else [Path(pattern)]
    if not found or not found[0].exists():
        raise InputError(f"against: {pattern}: there is no such file; give Parquet files or a curated set's folder")
    return found


def _of_manifest(path: Path, own_name: str) -> list[Pinned]:
    file = path / "manifest.json" if path.is_dir() else path
    manifest = read_manifest(file)
    if manifest.name == own_name:
        raise InputError(f"against: {path}: is the set {own_name!r} itself; a set is not compared with itself")
    return [Pinned(file.parent / shard.parquet, shard.parquet_sha256) for shard in manifest.shards]


def _of_file(path: Path) -> Pinned:
    try:
        pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"against: {path}: cannot be read as Parquet ({error})") from error
    return Pinned(path, file_sha256(path))


def _require_columns(file: Pinned, step: SelectionStep) -> None:
    names = pq.read_schema(file.path).names
    for column in step.step.against_columns.values():
        if column not in names:
            raise InputError(
                f"{step.label}: against: {file.path.name} has no column {column!r}; it has {', '.join(names)}"
            )
