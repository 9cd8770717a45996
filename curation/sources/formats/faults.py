"""In which line a CSV or JSON Lines file is wrong, and how: DuckDB often does not say, or counts lines otherwise.

Only read after DuckDB has refused a file.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curation.sources.formats.format import LINE_BYTES, compression_of

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MOST_BYTES = 4 << 30  # of text that is read again to find the line
_NAMED = (re.compile(r"^\s*file = (.+)$", re.MULTILINE), re.compile(r'file "([^"\n]+)"'))
_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


class _FaultError(Exception):
    """What is wrong with a file."""


def file_named_in(message: str) -> str | None:
    """The file that a message of DuckDB is about, where it names one."""
    found = next((match for pattern in _NAMED if (match := pattern.search(message))), None)
    return found[1].strip() if found else None


def fault_in(path: str) -> str | None:
    """The first fault of a text file as a sentence that begins with its line; None where there is none to be found."""
    suffix = re.search(r"\.(csv|tsv|jsonl|ndjson)(?=$|\.gz$|\.zst$)", path.lower())
    if suffix is None:
        return None
    try:
        if suffix[0] in _DELIMITERS:
            _read_delimited(path, _DELIMITERS[suffix[0]])
        else:
            _read_json_lines(path)
    except _FaultError as fault:
        return str(fault)
    except (OSError, pa.ArrowException):
        return None  # not a fault of the text
    return None


def _read_delimited(path: str, delimiter: str) -> None:
    rows = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(LINE_BYTES)
    header: list[str] = []
    line = 1
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                more = (
                    "put a field that holds the delimiter into double quotes"
                    if len(row) > len(header)
                    else ("write every field, and the delimiter also where a field is empty")
                )
                raise _FaultError(
                    f"line {line}: has {len(row)} field{'s' * (len(row) > 1)}, the header has {len(header)}; {more}"
                )
            line = rows.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise _FaultError(
                f"line {line}: a double quote opens a field, and none closes it; close it, or leave it out"
            ) from error
        if "expected after" in str(error):
            raise _FaultError(
                f"line {line}: text stands behind a closing double quote; write a quote inside of a field twice"
            ) from error
        raise _FaultError(f"line {line}: cannot be read: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _read_json_lines(path: str) -> None:
    objects = 0
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            said = f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)
            raise _FaultError(f"line {number}: is no JSON: {said}; every line holds one whole object") from error
        if not isinstance(value, dict):
            raise _FaultError(f"line {number}: is {_KINDS[type(value)]}; every line holds one object, {{…}}")
        objects += 1
    if not objects:
        raise _FaultError("holds no row, only empty lines")


def _lines(path: str) -> Iterator[str]:
    """The lines of a text, line ends included; plain or packed."""
    packed = compression_of([(path, ())])
    read = 0
    with io.BufferedReader(pa.input_stream(path, compression=None if packed == "none" else packed)) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _FaultError(
                    f"line {number}: is not UTF-8 text ({error.reason} at byte {error.start}); save the file as UTF-8"
                ) from error
            read += len(line)
            if read > _MOST_BYTES:
                return
