"""`arrays: {l14_img: {npz: meta/*.npz, array: l14_img}}` beside a table: embeddings in numpy files, in row order.

The n-th file of the table has its vectors in the n-th npz or npy, both in the order of their paths, and each row has
the vector at its own place. Every format's rows are read in their order, so any table may have vectors. They become
columns of float16: float32 and float64 are rounded to the nearest, what is beyond float16 is refused when it is read,
and rows of NaN stay NaN.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.files import digested, find_files, readable
from curation.sources.formats.format import first_row, paths_sql
from curation.sources.formats.numpy_array import NumpyArray, describe_array
from curation.sources.mapping import DEFAULT, RESERVED
from curation.sources.source import SourceFile, files_for
from curation.sources.table import TableSource, database
from schemas import columns as c
from schemas.errors import SourceError
from schemas.pipeline import Arrays

_BATCH_ROWS = 2_048  # in memory at once, with their vectors
_SUFFIXES = re.compile(r"(\.(parquet|csv|tsv|jsonl|ndjson|npz|npy|gz|zst))+$", re.IGNORECASE)


@dataclass(frozen=True)
class Vectors:
    """A column of embeddings: one array for each file of the table, all of one width."""

    column: c.Column
    model: str | None
    arrays: tuple[NumpyArray, ...]


@dataclass(frozen=True)
class TableWithArrays:
    """A table whose rows have vectors in numpy files beside it. Picklable."""

    table: TableSource
    vectors: tuple[Vectors, ...]

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The table's files with their digests."""
        return self.table.files

    @property
    def extra(self) -> Mapping[str, pa.DataType]:
        """The table's own columns, then the embeddings, each sorted by name."""
        return {**self.table.extra, **{each.column.name: each.column.type for each in self.vectors}}

    def identity(self) -> dict[str, Any]:
        """What names the vectors: array, model and the digests of whole files, each taken once."""
        paths = sorted({array.path for each in self.vectors for array in each.arrays})
        files = {path: digested(path) for path in paths}
        return {
            each.column.name: {
                "array": each.arrays[0].array,
                "model": each.model,
                "files": [[files[array.path].bytes, files[array.path].sha256] for array in each.arrays],
            }
            for each in self.vectors
        }

    def relation(self, folder: Path) -> str:
        """SQL that selects url, caption and the extra columns up to the limit, from files that this writes in a folder.

        One file of the table with its vectors becomes one Parquet; few rows are in memory. Raises SourceError.
        """
        limit = self.table.limit
        paths = []
        for file in range(files_for(limit, (array.rows for array in self.vectors[0].arrays))):
            paths.append(str(folder / f"paired-{file:06d}.parquet"))
            self._pair(file, paths[-1])
        cut = "" if limit is None else f" LIMIT {limit}"
        return f"SELECT * FROM read_parquet({paths_sql([(path, ()) for path in paths])}){cut}"

    def _pair(self, file: int, path: str) -> None:
        """Write the rows of one file of the table, each with its vectors."""
        schema = pa.schema([*((name, pa.string()) for name in DEFAULT), *self.extra.items()])
        with contextlib.ExitStack() as stack:
            readers = [stack.enter_context(each.arrays[file].open()) for each in self.vectors]
            writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="none", use_dictionary=False))
            for rows in self._rows(file):
                vectors = [_as_binary(read(rows.num_rows)) for read in readers]
                writer.write_table(pa.Table.from_arrays([*rows.columns, *vectors], schema=schema))

    def _rows(self, file: int) -> Iterator[pa.RecordBatch]:
        path = self.table.described[file][0]
        with database() as connection, readable(f"source table: {path}", path):
            yield from connection.sql(self.table.relation(file=file)).to_arrow_reader(_BATCH_ROWS)


def open_arrays(table: TableSource, asked: Mapping[str, Arrays]) -> TableWithArrays:
    """Find the vectors of a table and look at every header. Raises SourceError where they do not fit the table."""
    _refuse_taken(table, list(asked))
    paths = [path for path, _ in table.described]
    rows = _rows_of(table)
    vectors = []
    for name, wanted in sorted(asked.items()):
        files = find_files(wanted.paths, f"source arrays: {name}")
        _refuse_unpaired(paths, files, f"source arrays: {name}")
        arrays = tuple(describe_array(file, wanted.array) for file in files)
        _refuse_unfit(paths, rows, arrays, f"source arrays: {name}")
        vectors.append(Vectors(c.embedding(name, arrays[0].width, "from the source"), wanted.model, arrays))
    return TableWithArrays(table, tuple(vectors))


def _rows_of(table: TableSource) -> list[int]:
    """How many rows each file of a table has."""
    counts: list[int] = []
    with database() as connection:
        for file, (path, _) in enumerate(table.described):
            with readable(f"source table: {path}", path):
                counts += first_row(connection, f"SELECT count(*) FROM ({table.relation(file=file)})")
    return counts


def _refuse_taken(table: TableSource, names: Sequence[str]) -> None:
    """Refuse a name that another column has; case does not tell columns apart."""
    taken = {name.casefold(): "a name that every row has already" for name in (*RESERVED, *DEFAULT, c.IMAGE.name)}
    taken |= {name.casefold(): "which the table has, too" for name in table.extra}
    for name in names:
        if name.casefold() in taken:
            raise SourceError(
                f"source arrays: {name}: brings column {name!r}, {taken[name.casefold()]}; call it otherwise"
            )
        taken[name.casefold()] = "and another of its arrays is called so but for case"


def _refuse_unpaired(tables: Sequence[str], arrays: Sequence[str], where: str) -> None:
    """Refuse files that cannot be told to belong together: by number, by stem, or by the numbers in their stems."""
    if len(tables) != len(arrays):
        raise SourceError(
            f"{where}: wants one file of arrays for each file of the table, and there are {len(arrays):,} "
            f"({arrays[0]} …) for {len(tables):,} ({tables[0]} …)"
        )
    stems, others = [_stem(path) for path in tables], [_stem(path) for path in arrays]
    alike = bool(set(stems) & set(others))
    # Names of their own are paired by their order, in which 10 stands before 9 unless zeros stand before 9.
    places = zip(_places(stems), _places(others), strict=True)
    for file, (mine, its) in enumerate(places):
        if (stems[file] != others[file]) if alike else (mine != its):
            raise SourceError(
                f"{where}: {tables[file]} would go with {arrays[file]}, and their names say otherwise; "
                "call the files of arrays as those of the table"
            )


def _places(stems: Sequence[str]) -> list[int]:
    """The place of each stem where the numbers in them are ordered as numbers."""
    pieces = [re.split("([0-9]+)", stem) for stem in stems]  # every other piece is a number
    spelled = [[(int(piece) if n % 2 else 0, piece) for n, piece in enumerate(each)] for each in pieces]
    places = [0] * len(stems)
    for place, file in enumerate(sorted(range(len(stems)), key=lambda file: spelled[file])):
        places[file] = place
    return places


def _stem(path: str) -> str:
    return _SUFFIXES.sub("", os.path.basename(path))


def _refuse_unfit(tables: Sequence[str], rows: Sequence[int], arrays: Sequence[NumpyArray], where: str) -> None:
    """Refuse arrays of other numbers of rows than the table's files, or of several widths."""
    for table, count, array in zip(tables, rows, arrays, strict=True):
        if array.rows != count:
            raise SourceError(
                f"{where}: {array.path} has {array.rows:,} vectors, and {table} has {count:,} rows; "
                "each row needs the vector at its own place"
            )
        if array.width != arrays[0].width:
            raise SourceError(
                f"{where}: the vectors of {array.path} have {array.width:,} numbers, and those of {arrays[0].path} "
                f"have {arrays[0].width:,}; one column holds vectors of one width"
            )


def _as_binary(halves_ND: np.ndarray) -> pa.Array:
    """Vectors as fixed-size binary."""
    rows, width = halves_ND.shape
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * width), rows, [None, pa.py_buffer(halves_ND)])
