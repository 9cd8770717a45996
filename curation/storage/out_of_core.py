"""DuckDB for more rows than memory holds: it spills into the store's folder for temporary files."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator

import duckdb
import pyarrow as pa

from curation.storage.store import Store
from schemas.errors import StoreError

_MEMORY_LIMIT = "1GB"
_BATCH_ROWS = 10_000


@contextlib.contextmanager
def database(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, bounded. Raises StoreError where the disk has no room for what it spills."""
    with store.temporary_folder() as folder:
        connection = duckdb.connect(":memory:")
        connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute("SET temp_directory = $folder", {"folder": str(folder)})
        connection.execute("SET enable_progress_bar = false")
        try:
            yield connection
        except duckdb.OutOfMemoryException as error:
            free = shutil.disk_usage(folder).free
            raise StoreError(f"store {store.root}: out of room ({free:,} bytes of disk free): {error}") from error
        finally:
            connection.close()


def in_order(
    store: Store, schema: pa.Schema, batches: Iterator[pa.RecordBatch], order_by: str, sizes: Iterable[int]
) -> Iterator[pa.Table]:
    """The rows of a stream in an SQL order, in tables of exactly those sizes (the last may be smaller)."""
    raised: list[Exception] = []
    with database(store) as connection:
        connection.register("arrived", pa.RecordBatchReader.from_batches(schema, _remembered(batches, raised)))
        try:
            ordered = connection.sql(f"SELECT * FROM arrived ORDER BY {order_by}").to_arrow_reader(_BATCH_ROWS)
            yield from (table.cast(schema) for table in _cut(ordered, sizes))
        except (duckdb.Error, pa.ArrowException):
            if raised:
                raise raised[0] from None  # DuckDB would tell it in words only
            raise


def _remembered(batches: Iterator[pa.RecordBatch], raised: list[Exception]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except Exception as error:
        raised.append(error)
        raise


def _cut(reader: pa.RecordBatchReader, sizes: Iterable[int]) -> Iterator[pa.Table]:
    """What is read, cut anew: how DuckDB batches rows must not show."""
    pieces: list[pa.Table] = []
    held, wanted = 0, iter(sizes)
    size = next(wanted, 0)
    for batch in reader:
        table = pa.Table.from_batches([batch])
        while held + table.num_rows >= size > 0:
            yield pa.concat_tables([*pieces, table.slice(0, size - held)]).combine_chunks()
            table, pieces, held, size = table.slice(size - held), [], 0, next(wanted, 0)
        if table.num_rows:
            pieces.append(table)
            held += table.num_rows
    if pieces:
        yield pa.concat_tables(pieces).combine_chunks()
