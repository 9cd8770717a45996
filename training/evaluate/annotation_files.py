"""Reads the files in which benchmarks come, JSON, JSON lines, TSV, CSV and Parquet, and checks what they hold.

Each benchmark declares its rows as a TypedDict; what is not declared is left out, and what does not fit is told by its
place.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from schemas.errors import InputError
from schemas.overrides import spelled
from schemas.reading import sentence_of
from training.evaluate.pictures import InParquet

Row = dict[str, Any]
Form = TypeVar("Form")
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
"""Text, or a number as its text: ids and answers come as both."""
_SUFFIXES = (".json", ".jsonl", ".tsv", ".csv", ".parquet", ".p")


def files_of(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and those in folders that are named, by name. Raises InputError."""
    found: list[Path] = []
    for path in given:
        inside = sorted(one for one in path.glob("*") if one.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"annotations {path}: is a folder without a file that ends in {', '.join(_SUFFIXES)}")
        found += inside
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise InputError(f"annotations {missing[0]}: there is no such file")
    return found


def only_file(given: Sequence[Path], what: str) -> Path:
    """The one file that a benchmark has. Raises InputError where there are more."""
    found = files_of(given)
    if len(found) != 1:
        raise InputError(f"annotations: {len(found)} files are named, one is expected: {what}")
    return found[0]


def read_json(path: Path, *, what: str = "annotations", each_name_once: bool = False) -> Any:
    """What a JSON file holds; with `each_name_once`, an object that has a name twice is refused. Raises InputError."""
    hook = _each_name_once if each_name_once else None
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=hook)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: cannot be read as JSON: {error}") from error


def read_rows(path: Path, *, what: str = "annotations", pictures: bool = False) -> list[Row]:
    """Rows of a table in the format that the file's name ends in; a JSON file must hold a list of objects.

    Of a Parquet file's pictures only the places are given, and those where `pictures` asks. Raises InputError.
    """
    readers: dict[str, Callable[[Path], list[Row]]] = {
        ".jsonl": _json_lines,
        ".tsv": lambda table: _delimited(table, "\t"),
        ".csv": lambda table: _delimited(table, ","),
        ".parquet": lambda table: list(_parquet(table, pictures)),
    }
    try:
        found = readers[path.suffix](path) if path.suffix in readers else read_json(path, what=what)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{what} {path}: cannot be read as {path.suffix.strip('.')}: {error}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        misfit(path, "a list of objects", found, what=what)
    return found


def checked(path: Path, found: Any, form: TypeAdapter[Form], expected: str, *, what: str = "annotations") -> Form:
    """What a file holds, as a benchmark declares it. Raises InputError, which tells the first place that is wrong."""
    try:
        return form.validate_python(found)
    except ValidationError as error:
        detail = error.errors()[0]
        place = spelled(tuple(piece for piece in detail["loc"] if not str(piece).startswith("function-")))
        where = f", where {place} {sentence_of(detail, [])}" if place else ""
        raise InputError(f"{what} {path}: expected {expected}; found {_described(found)}{where}") from error


def misfit(path: Path, expected: str, found: Any, *, what: str = "annotations") -> NoReturn:
    """Raise InputError: a file holds something else than what a benchmark expects."""
    raise InputError(f"{what} {path}: expected {expected}; found {_described(found)}")


def unique(path: Path, ids: Sequence[str], *, what: str = "annotations") -> None:
    """Raise InputError where an id comes twice."""
    twice = [name for name, times in Counter(ids).items() if times > 1]
    if twice:
        raise InputError(f"{what} {path}: {some(twice)} come twice ({len(twice):,} of {len(set(ids)):,} ids)")


def some(ids: Sequence[str]) -> str:
    """The first few of many ids."""
    return ", ".join(repr(one) for one in ids[:3]) + (" …" if len(ids) > 3 else "")


def _described(found: Any) -> str:
    if isinstance(found, dict):
        return f"an object with the names {some([str(name) for name in found])}" if found else "an empty object"
    if isinstance(found, list):
        return f"a list of {len(found):,}" + (f", the first of which is {_described(found[0])}" if found else "")
    return f"{type(found).__name__} {str(found)[:40]!r}"


def _each_name_once(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"an object has {some(twice)} twice")
    return found


def _json_lines(path: Path) -> list[Row]:
    with open(path, encoding="utf-8-sig") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def _delimited(path: Path, delimiter: str) -> list[Row]:
    before = csv.field_size_limit(sys.maxsize)  # a field may be a picture in base64
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            return list(csv.DictReader(stream, delimiter=delimiter))
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, pictures: bool) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        pixels = [column.name for column in file.schema_arrow if _holds_pictures(column.type)]
        columns = [column.name for column in file.schema_arrow if column.name not in pixels]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns).to_pylist()
            for name in pixels if pictures else ():
                there = file.read_row_group(group, [name]).column(0).is_valid().to_pylist()
                for number, row in enumerate(rows):
                    row[name] = InParquet(path, name, group, number) if there[number] else None
            yield from rows


def _holds_pictures(kind: Any) -> bool:
    import pyarrow as pa

    in_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return in_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
