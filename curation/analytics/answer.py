"""An answer as a table for people, or as CSV, JSON or Parquet for programs; read in batches, never whole."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, BinaryIO

import duckdb
import pyarrow.parquet as pq

FORMATS = ("table", "csv", "json", "parquet")
_BATCH_ROWS = 10_000
_CELL_CHARS = 200
_PIPED_CHARS = 160  # the width of a table that goes to no terminal
_FOLDED_CHARS = 20  # a cell may be folded to lines of so many characters, not less


class Answer:
    """The rows of one SELECT."""

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self._relation = relation

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._relation.columns)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, read in batches."""
        with self._relation.to_arrow_reader(_BATCH_ROWS) as reader:
            for batch in reader:
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def records(self) -> list[dict[str, Any]]:
        """All rows as JSON values by column."""
        names = self.columns
        return [dict(zip(names, map(json_value, row), strict=True)) for row in self.rows()]

    def write(self, out: BinaryIO, format: str, shown_rows: int, width: int | None) -> int:
        """Write the rows; return how many were written."""
        if format == "parquet":
            return self._write_parquet(out)
        stream = io.TextIOWrapper(out, encoding="utf-8", newline="")
        try:
            if format == "csv":
                return self._write_csv(stream)
            if format == "json":
                return self._write_json(stream)
            return self._write_table(stream, shown_rows, width)
        finally:
            stream.flush()
            stream.detach()  # the caller's stream stays open

    def _write_csv(self, stream: io.TextIOWrapper) -> int:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        count = 0
        for row in self.rows():
            writer.writerow([_csv_cell(value) for value in row])
            count += 1
        return count

    def _write_json(self, stream: io.TextIOWrapper) -> int:
        """One array, an object per line."""
        names, count = self.columns, 0
        for row in self.rows():
            record = dict(zip(names, map(json_value, row), strict=True))
            stream.write(("[\n" if count == 0 else ",\n") + json.dumps(record, ensure_ascii=False, allow_nan=False))
            count += 1
        stream.write("[]\n" if count == 0 else "\n]\n")
        return count

    def _write_parquet(self, out: BinaryIO) -> int:
        count = 0
        with self._relation.to_arrow_reader(_BATCH_ROWS) as reader, pq.ParquetWriter(out, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
                count += batch.num_rows
        return count

    def _write_table(self, stream: io.TextIOWrapper, shown_rows: int, width: int | None) -> int:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        head = list(itertools.islice(self.rows(), shown_rows + 1))
        shown = [[_shown(value) for value in row] for row in head[:shown_rows]]
        console = Console(file=stream, width=width or _PIPED_CHARS, force_terminal=False, color_system=None)
        if _needed_chars(self.columns, shown) > console.width:
            _write_upright(stream, self.columns, shown)
        else:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for name, kind in zip(self.columns, map(str, self._relation.types), strict=True):
                table.add_column(Text(name), justify="right" if _is_number(kind) else "left", overflow="fold")
            for cells in shown:
                table.add_row(*map(Text, cells))
            console.print(table)
        more = "; there are more: --rows shows more of them, --format csv gives all" if len(head) > len(shown) else ""
        stream.write(f"{len(shown):,} {'row' if len(shown) == 1 else 'rows'}{more}\n")
        return len(shown)


def _needed_chars(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width below which cells would be folded beyond reading."""
    widths = (max(len(name), *(min(len(row[i]), _FOLDED_CHARS) for row in rows), 1) for i, name in enumerate(columns))
    return sum(width + 3 for width in widths)


def _write_upright(stream: io.TextIOWrapper, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A block of lines per row, for rows that are wider than the terminal."""
    wide = max(map(len, columns))
    for number, row in enumerate(rows):
        stream.write(f"row {number + 1}\n")
        for name, cell in zip(columns, row, strict=True):
            stream.write(f"  {name:{wide}}  {cell}\n")
    stream.write("\n")


def json_value(value: Any) -> Any:
    """A value of DuckDB as JSON: bytes as hex, no NaN, times in ISO 8601."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return json.dumps(json_value(value), ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    return value.hex() if isinstance(value, bytes) else value


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    text = f"{value:.6g}" if isinstance(value, float) else str(_csv_cell(value))
    text = "".join(ch if ch.isprintable() else " " for ch in text)  # captions hold any character; terminals obey some
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…"


def _is_number(kind: str) -> bool:
    return kind.endswith(("INT", "INTEGER", "FLOAT", "DOUBLE")) or kind.startswith("DECIMAL")
