"""The other side of a comparison: Parquet files or manifests of curated sets, pinned by digest before anything runs."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.other_files import read_columns, rows_in, schema_of
from curation.selection.inputs import input_types
from curation.stage import OperatorStep, Pinned, Plan, SelectionStep, Where
from curation.storage.store import file_sha256
from schemas.columns import IMAGE, KEY
from schemas.errors import InputError, RunError
from schemas.manifest import Manifest, newest_version, read_manifest
from schemas.nearest import unknown_name
from schemas.pins import put_pin


def pin_against(plan: Plan, own_name: str) -> Plan:
    """The plan with everything pinned that its steps compare with. Raises InputError."""
    return replace(plan, steps=tuple(_named(plan, step, own_name) for step in plan.steps))


def note_against(plan: Plan, own_name: str) -> None:
    """Let `prune` know of every version that the plan's steps compare with."""
    pinned = [file.manifest for step in plan.steps if isinstance(step, SelectionStep) for file in step.against]
    for manifest in sorted({path for path in pinned if path is not None}):
        put_pin(manifest, read_manifest(manifest).version, f"the set {own_name}, which is compared against it")


def load_against(step: SelectionStep) -> Sequence[pa.Table]:
    """The tables to compare with: key (NULL where a file has none), file, row, and the columns asked for.

    Raises RunError where a file has changed since the plan was made.
    """
    wanted = step.step.against_columns
    tables = []
    for pinned in step.against:
        try:
            changed = file_sha256(pinned.path) != pinned.sha256
        except OSError:
            changed = True
        if changed:
            raise RunError(f"{step.label}: {pinned.path}: has changed since the run began; run it again")
        if not wanted:
            continue  # the step reads it by itself
        names = list(wanted.values())
        with_key = [KEY.name] if KEY.name in schema_of(pinned.path, names).names else []
        tables.append(_as_decided_on(read_columns(pinned.path, [*names, *with_key]), pinned.path.name, wanted))
    return tables


def _as_decided_on(table: pa.Table, file: str, wanted: Mapping[str, str]) -> pa.Table:
    keys = table[KEY.name] if KEY.name in table.column_names else pa.nulls(table.num_rows, pa.string())
    columns: dict[str, Any] = {KEY.name: keys, "file": pa.repeat(pa.scalar(file, pa.string()), table.num_rows)}
    columns["row"] = pa.array(np.arange(table.num_rows))
    return pa.table(columns | {alias: table[name] for alias, name in wanted.items()})


def rows_of(files: Sequence[Pinned]) -> int:
    """How many rows the files have together."""
    return sum(rows_in(file.path) for file in files)


def _named(plan: Plan, step: OperatorStep | SelectionStep, own_name: str) -> OperatorStep | SelectionStep:
    try:
        return _pinned(plan, step, own_name)
    except InputError as error:
        raise InputError(f"{step.label}: {error}") from error


def _pinned(plan: Plan, step: OperatorStep | SelectionStep, own_name: str) -> OperatorStep | SelectionStep:
    patterns = getattr(step.step, "against", ()) if isinstance(step, SelectionStep) else ()
    if not isinstance(step, SelectionStep) or not patterns:
        return step
    files: list[Pinned] = []
    for pattern in patterns:
        for path in _paths(pattern):
            if path.suffix == ".json" or path.is_dir():
                files += _of_manifest(path, plan, step, own_name)
            else:
                files.append(Pinned(path, file_sha256(path)))
    columns = {name: where.column.type for name, where in plan.columns.items() if name != IMAGE.name}
    types = input_types(step.step, columns)
    for file in files:
        _require_columns(file, step, types)
    return replace(step, step=step.step.pinned_to([str(file.path) for file in files]), against=tuple(files))


def _paths(pattern: str) -> Iterator[Path]:
    found = [Path(p) for p in sorted(glob.glob(pattern))] if glob.has_magic(pattern) else [Path(pattern)]
    if not found or not found[0].exists():
        folder = Path(pattern).parent
        there = sorted(path.name for path in folder.glob("*") if path.suffix in (".parquet", ".json") or path.is_dir())
        near = unknown_name(Path(pattern).name, there, f"in {folder} there are")
        raise InputError(f"against: {pattern}: {near}; give Parquet files or a curated set's folder")
    return iter(found)


def _of_manifest(path: Path, plan: Plan, step: SelectionStep, own_name: str) -> list[Pinned]:
    """The shards of one version of another set."""
    file = newest_version(path / "manifest.json" if path.is_dir() else path)
    manifest = read_manifest(file)
    if manifest.name == own_name:
        raise InputError(f"against: {path}: is the set {own_name!r} itself; a set is not compared with itself")
    if not getattr(step.step, "assume_equal", False):
        for alias, theirs in step.step.against_columns.items():
            ours = step.step.stored_inputs.get(alias, theirs)
            _require_same_operator(path, manifest, plan, plan.columns[ours], theirs)
    return [Pinned(file.parent / shard.parquet, shard.parquet_sha256, file) for shard in manifest.shards]


def _require_same_operator(path: Path, manifest: Manifest, plan: Plan, where: Where, column: str) -> None:
    """Hashes of one name may come from different operators, or of pictures of different sizes: they do not compare."""
    theirs = next((entry.step for entry in manifest.columns if entry.name == column), None)
    ours = plan.producer(where.step).base_fingerprint if where.kind == "sidecar" and where.step >= 0 else None
    if theirs is not None and manifest.operators.get(theirs) != ours:
        raise InputError(
            f"against: {path}: column {column!r} comes from {theirs} there, by another operator, "
            "parameters or pictures than here, so its values may not compare; make both sets alike, or declare with "
            "`assume_equal: true` that they do"
        )


def _require_columns(file: Pinned, step: SelectionStep, types: Mapping[str, pa.DataType]) -> None:
    schema = schema_of(file.path, list(step.step.against_columns.values()))
    names = schema.names
    for column in step.step.against_columns.values():
        if column not in names:
            raise InputError(f"against: {file.path}: {unknown_name(column, names, 'its columns are')}")
    try:
        step.step.check_against(_as_decided_on(schema.empty_table(), file.path.name, step.step.against_columns), types)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error
