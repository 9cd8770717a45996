"""The files of one shard: its Parquet and, where there are pictures, its tar of `<key>.jpg`, `.txt` and `.json`."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.part_rows import read_pictures
from curation.storage.store import FileRef, Store
from curation.storage.tables import put_table
from schemas.columns import KEY
from schemas.errors import StoreError
from schemas.pixels import stored_format
from schemas.shard import ShardWriter

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: its table in order, and (shuffle.PICTURES) where its pictures lie; None for no tar."""

    store: Store
    table: pa.Table
    pictures: pa.Table | None
    caption: str


def write_shard(task: ShardTask, **_: Any) -> tuple[FileRef, FileRef | None]:
    """Write the Parquet and, where there are pictures, the tar of one shard."""
    parquet = put_table(task.store, _for_readers(task.table))
    if task.pictures is None:
        return parquet, None
    with task.store.new_file(".tar") as file, open(file.path, "wb") as stream, ShardWriter(stream) as tar:
        for start in range(0, task.table.num_rows, _ROWS_AT_ONCE):
            rows = _scalars(task.table.slice(start, _ROWS_AT_ONCE)).to_pylist()
            places = task.pictures.slice(start, _ROWS_AT_ONCE).to_pylist()
            pictures = read_pictures(task.store, [(at["tar"], at["offset"], at["length"]) for at in places])
            for row, stored, at in zip(rows, pictures, places, strict=True):
                _require_digest(row[KEY.name], stored, at["stored_sha256"])
                tar.add(row[KEY.name], _members(row, stored, task.caption))
    return parquet, file.ref


def _members(row: dict[str, Any], stored: bytes, caption: str) -> dict[str, bytes]:
    about = {name: _json_value(value) for name, value in row.items()}
    spelling = json.dumps(about, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    return {stored_format(stored): stored, "txt": (row[caption] or "").encode(), "json": spelling.encode()}


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _require_digest(key: str, stored: bytes, sha256: str) -> None:
    found = hashlib.sha256(stored).hexdigest()
    if found != sha256:
        raise StoreError(f"picture of {key}: has SHA-256 {found}, its record says {sha256}; the store is damaged")


def _is_embedding(field: pa.Field) -> bool:
    return pa.types.is_fixed_size_binary(field.type) and bool(field.metadata) and b"width" in field.metadata


def _scalars(table: pa.Table) -> pa.Table:
    return table.select([field.name for field in table.schema if not _is_embedding(field)])


def _for_readers(table: pa.Table) -> pa.Table:
    """Embeddings as lists of float16, which every reader of Parquet understands."""
    for place, field in enumerate(table.schema):
        if _is_embedding(field):
            table = table.set_column(place, field.name, as_lists(table[field.name]))
    return table


def as_lists(column: pa.ChunkedArray) -> pa.Array:
    """An embedding column (fixed-size binary) as lists of float16; NULL stays NULL."""
    values = column.combine_chunks()
    width = values.type.byte_width // 2
    lists = [None if v is None else np.frombuffer(v, np.float16) for v in values.to_pylist()]
    assert all(v is None or len(v) == width for v in lists)
    return pa.array(lists, pa.list_(pa.float16()))
