"""Groups of equal values and the first row of each, by rank.

N, M: rows; G: groups. DuckDB compares the values themselves, not digests of them: nobody can write two captions that
collide, and equal is what `=` means in `keep`. NaN equals NaN, -0.0 equals 0.0, text equals byte by byte, lists and
structs equal member by member (a NULL inside equals a NULL inside), decimals and times by value; but a column that is
NULL equals nothing.
"""

import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

_MEMORY_LIMIT = "1GB"  # beyond the tables; DuckDB cuts by hash what does not fit, and spills it
_BATCH_ROWS = 100_000


def leaders_of_equal(columns: pa.Table, rank_N: np.ndarray, folder: Path | None = None) -> np.ndarray:
    """For each of N rows the row that ranks first among those equal to it in all columns, as `leader_N`.

    A row with NULL in any column leads itself. Ranks are 0 to N-1, each once. What memory does not hold goes to
    temporary files in `folder` (or where the system has them).
    """
    first_N = lowest_rank_of_equal(columns, columns, rank_N, folder)
    order_N = np.empty(len(rank_N), np.int64)
    order_N[rank_N] = np.arange(len(rank_N))
    return np.where(first_N < 0, np.arange(len(rank_N)), order_N[first_N])


def lowest_rank_of_equal(
    columns: pa.Table, others: pa.Table, rank_M: np.ndarray, folder: Path | None = None
) -> np.ndarray:
    """For each of N rows the lowest rank among M others equal to it in all columns, as `rank_N`; -1 where none is.

    Both tables have the same columns, in the same order and of types that compare; their names do not matter.
    """
    names = [f"value_{place}" for place in range(columns.num_columns)]
    ours = columns.rename_columns(names).append_column("row", pa.array(np.arange(columns.num_rows)))
    theirs = others.rename_columns(names).append_column("rank", pa.array(rank_M))
    values = ", ".join(names)
    first_N = np.full(columns.num_rows, -1, np.int64)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as spilled, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute("SET temp_directory = $folder", {"folder": spilled})
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        connection.register("ours", ours)
        connection.register("theirs", theirs)
        found = connection.sql(
            f"""SELECT "row", first FROM ours
                JOIN (SELECT {values}, min(rank) AS first FROM theirs GROUP BY {values}) USING ({values})"""
        )
        for batch in found.to_arrow_reader(_BATCH_ROWS):
            first_N[batch["row"].to_numpy()] = batch["first"].to_numpy()
    return first_N
