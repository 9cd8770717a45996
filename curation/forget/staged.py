"""What is forgotten does not come in again: of such rows of a source only key and address are taken."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from curation.forget.tombstones import Tombstones

_ROWS_AT_ONCE = 50_000


def blank_staged(database: duckdb.DuckDBPyConnection, tombstones: Tombstones, theirs: Sequence[str]) -> None:
    """Make NULL what the source says of forgotten rows; `theirs` are its own columns, as SQL.

    Only where the row can still be told to be forgotten afterwards: not by its host, and of a row that failed at the
    source, whose address is not kept, by its key alone. Such rows keep their text until a purge.
    """
    if not tombstones:
        return
    for table in ("staged", "rejected"):
        gone: list[str] = []
        for batch in database.sql(f"SELECT key, address FROM {table}").to_arrow_reader(_ROWS_AT_ONCE):
            hit_N = tombstones.matches("key", batch["key"])
            if table == "staged":
                hit_N |= tombstones.matches("url", batch["address"])
            gone += batch["key"].filter(pa.array(hit_N)).to_pylist()
        database.register("gone", pa.table({"key": pa.array(gone, pa.string())}))
        blank = ", ".join(f"{name} = NULL" for name in ("url", "caption", *theirs))
        database.execute(f"UPDATE {table} SET {blank} WHERE key IN (SELECT key FROM gone)")
        database.unregister("gone")
