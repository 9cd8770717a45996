"""Vectors that a run computed once and every later one re-uses: the first that were put stand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from curation.storage import layout
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import put_table, read_table


def captured_vectors(store: Store | None, named: list[Any], make: Callable[[], np.ndarray | None]) -> np.ndarray | None:
    """float16 `vectors_KD` of that name; made where there are none yet. None, which costs nothing, is not kept."""
    name = layout.captured(digest(named))
    record = store.get(name) if store is not None else None
    if record is None:
        made_KD = make()
        if made_KD is None or store is None:
            return made_KD
        kind = pa.binary(2 * made_KD.shape[1])
        table = pa.table({"vector": pa.array([row.tobytes() for row in made_KD.astype(np.float16)], kind)})
        store.put(name, {"file": put_table(store, table).record()})
        record = store.get(name)
    column = read_table(store, FileRef(**record["file"]))["vector"].combine_chunks()  # type: ignore[arg-type]
    halves = np.frombuffer(column.buffers()[1], np.float16)
    return halves.reshape(-1, column.type.byte_width // 2)[column.offset : column.offset + len(column)]
