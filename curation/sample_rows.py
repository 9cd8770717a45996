"""A few rows that any operator can be tried on: ordinary ones, and those that come in every real pool.

The pictures are drawn here, one is no picture; captions are missing, empty, long, of several scripts, with NUL bytes.
"""

import hashlib
import io
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.operator import Batch, Operator
from schemas import columns as c
from schemas.columns import Column

ROWS = 8
BROKEN_PICTURE_ROW = 5
NULL_ROW = 2
_EMBEDDING_WIDTH = 16

CAPTIONS = (
    "a red circle on a wooden table",
    "",
    None,
    "ein Hund am Strand, fotografiert im März",
    "海辺の犬 🏖️ and a \0 byte",
    "a picture that is broken",
    "many words " * 500,
    "Two  spaces\tand a tab",
)


def sample_batch(operator: Operator) -> Batch:
    """A batch of `ROWS` rows with every column that the operator reads."""
    columns = {c.KEY.name: pa.array([hashlib.sha256(bytes([row])).hexdigest()[:32] for row in range(ROWS)])}
    for column in operator.reads:
        if column.name != c.IMAGE.name:
            columns[column.name] = _values(column)
    reads_pictures = any(column.name == c.IMAGE.name for column in operator.reads)
    return Batch(pa.table(columns), pictures() if reads_pictures else (None,) * ROWS)


@cache
def pictures() -> tuple[bytes, ...]:
    """One stored picture per row: JPEG, PNG and WebP of several sizes; the one at BROKEN_PICTURE_ROW is cut short."""
    found = [_picture(row) for row in range(ROWS)]
    found[BROKEN_PICTURE_ROW] = found[BROKEN_PICTURE_ROW][:60]
    return tuple(found)


def _picture(seed: int) -> bytes:
    from PIL import Image

    colours_HWC = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    size = (48 + 8 * seed, 80 - 6 * seed)
    out = io.BytesIO()
    picture = Image.fromarray(colours_HWC).resize(size, Image.Resampling.BICUBIC)
    picture.save(out, ("JPEG", "PNG", "WEBP")[seed % 3])
    return out.getvalue()


def _values(column: Column) -> pa.Array:
    """Values for a column that is read: its own where we know what stands in it, else numbers of its type."""
    if column.name == c.URL.name:
        return pa.array([f"http://127.0.0.1:9/{row}.jpg" for row in range(ROWS)])
    if column.name == c.CAPTION.name:
        return pa.array(CAPTIONS, column.type)
    if column.type == pa.binary() or column.is_embedding:
        return _vectors(column.width or _EMBEDDING_WIDTH)
    return pa.array([None if row == NULL_ROW else _value(column.type, row) for row in range(ROWS)], column.type)


def _vectors(width: int) -> pa.Array:
    vectors_ND = np.random.default_rng(width).normal(size=(ROWS, width))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return pa.array([vector.tobytes() for vector in vectors_ND.astype(np.float16)], pa.binary(2 * width))


def _value(kind: pa.DataType, row: int) -> Any:
    if pa.types.is_boolean(kind):
        return row % 2 == 0
    if pa.types.is_integer(kind):
        return 1 + 7 * row
    if pa.types.is_floating(kind):
        return row / ROWS
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_value(kind.value_type, number) for number in range(row)]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return bytes([row])
    return f"text {row}" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None
