"""Which files a source names, in which order, and what a reader's complaint about one of them means."""

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.sources.formats.faults import fault_in, file_named_in
from curation.sources.source import SourceFile
from curation.sources.suggestion import did_you_mean
from curation.storage.store import file_sha256
from schemas.errors import SourceError

_ADVICE = re.compile(r" ?Try (setting|auto-detecting)[^;]*")
_REMEDIES = (
    "The search space used",
    "LINE 1:",
    "Possible fixes",
    "Possible Solution",
    "Possible solutions",
    "file =",
    "Candidate",
)


def find_files(patterns: str | Sequence[str], where: str) -> tuple[str, ...]:
    """The files that paths and globs name, each once, sorted by path. Raises SourceError where one names none."""
    found: dict[str, str] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for path in _matching(pattern, where):
            found.setdefault(os.path.realpath(path), path)
    if not found:
        raise SourceError(f"{where}: names no file; give a path, a glob or a list of them")
    for path in found.values():
        if os.path.getsize(path) == 0:
            raise SourceError(f"{where}: {path} is empty (0 bytes); write it again or leave it out")
    return tuple(sorted(found.values()))


def _matching(pattern: str, where: str) -> list[str]:
    if os.path.isdir(pattern):
        raise SourceError(f"{where}: {pattern} is a folder; name its files with a glob, {os.path.join(pattern, '*')!r}")
    if os.path.isfile(pattern):
        return [pattern]
    if glob.has_magic(pattern):
        paths = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
        if paths:
            return paths
        raise SourceError(f"{where}: {pattern} matches no file{_neighbours(pattern)}")
    braces = "; braces are not expanded, write a glob or a list" if "{" in pattern else ""
    raise SourceError(f"{where}: there is no file {pattern}{braces}{_neighbours(pattern)}")


def _neighbours(pattern: str) -> str:
    """What lies where the pattern looked, for the error."""
    folder = os.path.dirname(pattern) or "."
    if glob.has_magic(folder):
        return ""
    if not os.path.isdir(folder):
        return f"; there is no folder {folder}"
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    if not names:
        return f"; the folder {folder} is empty"
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    hint = "" if glob.has_magic(pattern) else did_you_mean(os.path.basename(pattern), names)
    return f"; in {folder} there is: {shown}{hint}"


def labels(paths: Sequence[str]) -> tuple[str, ...]:
    """Short names of files, by which rows are named: relative to the folder they share, so that they can move."""
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return tuple(Path(os.path.relpath(path, shared)).as_posix() for path in paths)


def digested(path: str) -> SourceFile:
    """A file with its length and its SHA-256."""
    return SourceFile(path, os.path.getsize(path), file_sha256(Path(path)))


@contextlib.contextmanager
def readable(where: str, path: str | None = None) -> Iterator[None]:
    """Turn what DuckDB or the file system says about a source's file into a SourceError of one line.

    `path` is the file where DuckDB may not name it; of a text file the line that is wrong is looked for.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
        file = path or file_named_in(str(error))
        fault = fault_in(file) if file and isinstance(error, duckdb.Error) else None
        named = f"{where}: {file}" if fault and str(file) not in where else where
        raise SourceError(f"{named}: {fault or reason(error)}") from error


def reason(error: Exception) -> str:
    """The first sentences of DuckDB's message, without its SQL and its advice about options that are fixed here."""
    lines: list[str] = []
    for line in str(error).strip().splitlines():
        if line.strip().startswith(_REMEDIES):
            break
        if line.strip():
            lines.append(line.strip())
    text = _ADVICE.sub("", "; ".join(lines)).rstrip("; ")[:500]
    prefix, _, rest = text.partition(" Error: ")
    return rest if rest and prefix.replace(" ", "").isalpha() else text
