"""Files of other sets that steps compare with: Parquet, or an npy array whose rows are embeddings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError

_ARRAY = ".npy"


def schema_of(path: Path, wanted: Sequence[str]) -> pa.Schema:
    """The columns of a file; an array is the first column that is wanted. Raises InputError."""
    if path.suffix == _ARRAY:
        return pa.schema([pa.field(wanted[0], pa.binary(2 * _array(path).shape[1]))])
    try:
        return pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error


def rows_in(path: Path) -> int:
    """How many rows a file has."""
    return len(_array(path)) if path.suffix == _ARRAY else pq.read_metadata(path).num_rows


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a file; vectors of an array as they would be stored, float16."""
    if path.suffix != _ARRAY:
        return pq.read_table(path, columns=list(columns))
    halves_ND = np.ascontiguousarray(_array(path), np.float16)
    kind = pa.binary(2 * halves_ND.shape[1])
    return pa.table({columns[0]: pa.Array.from_buffers(kind, len(halves_ND), [None, pa.py_buffer(halves_ND)])})


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an array ({error})") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path}: holds {array.dtype} of shape {array.shape}; embeddings are rows of numbers")
    return array
