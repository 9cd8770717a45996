"""What a dataset step sees of the rows: its SQL expressions, and embeddings as they are stored.

N: rows; D: numbers per vector.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import sql
from curation.selection.step import DatasetStep
from schemas.columns import KEY
from schemas.errors import InputError, RunError


def input_types(step: DatasetStep, columns: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types of a step's inputs over these columns. Raises InputError."""
    types = sql.bind(step.inputs, columns)
    for own, name in step.stored_inputs.items():
        if name not in columns:
            raise InputError(f"{own}: there is no column {name!r}; there are: {', '.join(columns)}")
        if not is_vectors(columns[name]):
            raise InputError(f"column {name!r} is of type {columns[name]}, and no embedding; clip_embed adds some")
        types[own] = columns[name]
    return types


def input_columns(step: DatasetStep, columns: Mapping[str, pa.DataType]) -> list[str]:
    """The columns that a step's inputs are made of, sorted."""
    used = {name for text in step.inputs.values() for name in sql.used_columns(text, columns)}
    return sorted(used | set(step.stored_inputs.values()))


def input_table(step: DatasetStep, table: pa.Table) -> pa.Table:
    """The key and a step's inputs for the rows of a table. Raises RunError."""
    inputs = sql.evaluate(step.inputs, table)
    seen = {name: inputs[name] for name in inputs.column_names}
    stored = {own: stored_vectors(table[name], name) for own, name in step.stored_inputs.items()}
    return pa.table({KEY.name: table[KEY.name], **seen, **stored})


def is_vectors(kind: pa.DataType) -> bool:
    """Whether a column of that type holds vectors: float16 as binary, or lists of numbers."""
    if pa.types.is_fixed_size_binary(kind):
        return bool(kind.byte_width % 2 == 0)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def stored_vectors(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Vectors as fixed-size binary of float16, whatever form they come in; NULL stays. Raises RunError."""
    if pa.types.is_fixed_size_binary(column.type):
        return column
    array = column.combine_chunks()
    lengths = pc.unique(pc.list_value_length(array).drop_null()).to_pylist()
    if len(lengths) > 1:
        raise RunError(
            f"column {name!r} holds vectors of different lengths: {', '.join(map(str, sorted(lengths)[:5]))}"
        )
    width = lengths[0] if lengths else 1
    numbers = pc.list_flatten(array).to_numpy(zero_copy_only=False)
    halves_MD = numbers.astype(np.float16).reshape(-1, width) if len(numbers) else np.zeros((0, width), np.float16)
    binary = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * width), len(halves_MD), [None, pa.py_buffer(np.ascontiguousarray(halves_MD))]
    )
    at = np.cumsum(array.is_valid().to_numpy(zero_copy_only=False)) - 1
    return pa.chunked_array([binary.take(pa.array(at, mask=array.is_null().to_numpy(zero_copy_only=False)))])


def halves(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Stored vectors as float16 `vectors_ND` (zeros for NULL), and which rows are not NULL."""
    vectors_ND, is_valid_N = raw_halves(column.combine_chunks())
    return (vectors_ND if is_valid_N.all() else np.where(is_valid_N[:, None], vectors_ND, 0)), is_valid_N


def raw_halves(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The memory of stored vectors as float16 `vectors_ND` (anything for NULL), and which rows are not NULL."""
    width = array.type.byte_width // 2
    is_valid_N = array.is_valid().to_numpy(zero_copy_only=False)
    if not len(array):
        return np.zeros((0, width), np.float16), is_valid_N
    raw = np.frombuffer(array.buffers()[1], np.float16)[array.offset * width :][: len(array) * width]
    return raw.reshape(len(array), width), is_valid_N
