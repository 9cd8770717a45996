"""What a dataset step sees of the rows: its SQL expressions, and embeddings as they are stored.

N: rows; D: numbers per vector.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import sql
from curation.selection.step import DatasetStep
from schemas.columns import KEY
from schemas.errors import InputError, RunError

GATHERED_BYTES = 4 << 30


def outgrows_memory(values_bytes: int) -> bool:
    """Whether values are so large that no process should hold all of them: it hangs on them, and on no machine."""
    return values_bytes > GATHERED_BYTES


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


def gathered(tables: Iterable[pa.Table], folder: Path | None) -> pa.Table | None:
    """The rows of all tables in one, None of none; what outgrows memory is read from a file of the folder.

    The file has lost its name when this returns: it goes with the table, or with the process.
    """
    coming = iter(tables)
    held: list[pa.Table] = []
    held_bytes = 0
    for table in coming:
        held.append(table)
        held_bytes += table.nbytes
        if folder is not None and outgrows_memory(held_bytes):
            return _on_disk(held, coming, folder)
    return pa.concat_tables(held) if held else None


def _on_disk(held: list[pa.Table], coming: Iterator[pa.Table], folder: Path) -> pa.Table:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.arrow"
    try:
        with pa.ipc.new_file(str(path), held[0].schema) as writer:
            while held:
                writer.write_table(held.pop(0))
            for table in coming:
                writer.write_table(table)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    finally:
        path.unlink(missing_ok=True)


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
