"""Parquet with pinned settings, so that equal tables give equal bytes."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.storage.store import FileRef, Store
from schemas.errors import StoreError

ROW_GROUP_ROWS = 10_000


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table; the bytes depend on the table alone."""
    with parquet_writer(path, table.schema) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP_ROWS)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the pinned settings."""
    return pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=1, write_page_checksum=True, version="2.6"
    )


def put_table(store: Store, table: pa.Table) -> FileRef:
    """Put a table into the store as a file named by its content."""
    with store.new_file(".parquet") as file:
        write_parquet(table, file.path)
    return file.ref


def read_table(store: Store, ref: FileRef, columns: list[str] | None = None) -> pa.Table:
    """Read columns of a file that a record lists; its length is checked. Raises StoreError."""
    path = store.path(ref.name)
    try:
        length = path.stat().st_size
        if length != ref.bytes:
            raise StoreError(f"{path}: has {length} bytes, its record says {ref.bytes}; the store is damaged")
        return pq.read_table(path, columns=columns, use_threads=False, memory_map=True)
    except FileNotFoundError:
        raise StoreError(f"{path}: a record lists it, and it is not there; the store is damaged") from None
    except pa.ArrowInvalid as error:
        raise StoreError(f"{path}: cannot be read as Parquet ({error}); the store is damaged") from error


def runs_of(reader: pa.RecordBatchReader, column: str) -> Iterator[tuple[int, pa.Table]]:
    """Split a stream that is sorted by an integer column into one table per value, without that column."""
    value: int | None = None
    pieces: list[pa.Table] = []
    for batch in reader:
        table = pa.Table.from_batches([batch])
        start = 0
        values = table[column].to_numpy()
        ends = [*(i + 1 for i in (values[1:] != values[:-1]).nonzero()[0]), len(values)]
        for end in ends:
            if end == start:
                continue
            if pieces and values[start] != value:
                yield value, pa.concat_tables(pieces)  # type: ignore[misc]
                pieces = []
            value = int(values[start])
            pieces.append(table.slice(start, end - start).drop_columns([column]))
            start = end
    if pieces:
        yield value, pa.concat_tables(pieces)  # type: ignore[misc]
