"""Vectors in numpy files: npy, or an array of an npz (a zip of npy files, packed or not).

Header and lengths say all but the numbers, and are all that is read before a run. Nothing is ever unpickled.
N: rows; D: numbers per vector.
"""

import contextlib
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from curation.sources.suggestion import did_you_mean
from schemas.errors import SourceError

_ITEM_BYTES = (2, 4, 8)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


@dataclass(frozen=True)
class NumpyArray:
    """Vectors in a file, one a row. Picklable."""

    path: str
    array: str | None  # its name in an npz; None for an npy
    dtype: str  # as numpy spells it, byte order included: <f4
    rows: int
    width: int  # numbers per vector

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[int], np.ndarray]]:
        """Give a function that reads the next so many vectors as float16, `halves_ND`; no others are in memory.

        Numbers are rounded to the nearest float16, ties to even; NaN and infinity stay. Raises SourceError where a
        number is beyond float16, and where the file is damaged or ends too early.
        """
        with _opened(self.path, self.array) as (stream, _):
            with _readable(self.path, self.array):
                _header(stream)
            yield lambda rows: self._next(stream, rows)

    def _next(self, stream: IO[bytes], rows: int) -> np.ndarray:
        dtype = np.dtype(self.dtype)
        wanted = rows * self.width * dtype.itemsize
        with _readable(self.path, self.array):
            data = stream.read(wanted)
            if len(data) != wanted:
                raise ValueError(f"it ends before row {self.rows:,}; it has changed since it was opened")
        vectors_ND = np.frombuffer(data, dtype).reshape(rows, self.width)
        with np.errstate(over="ignore"):
            halves_ND = vectors_ND.astype("<f2", order="C")
        too_large_ND = np.isinf(halves_ND) & np.isfinite(vectors_ND)
        if too_large_ND.any():
            number = vectors_ND[too_large_ND][0]
            raise SourceError(
                f"{_named(self.path, self.array)} holds {number:g}, and embeddings are float16, up to 65,504; "
                "scale the vectors to unit length"
            )
        return halves_ND


def describe_array(path: str, array: str | None) -> NumpyArray:
    """What the header of an npy, or of an array in an npz, says. Raises SourceError for all that holds no vectors."""
    with _opened(path, array) as (stream, length), _readable(path, array):
        shape, by_columns, dtype = _header(stream)
        fault = _fault(shape, by_columns, dtype)
        if fault:
            raise SourceError(f"{_named(path, array)} {fault}")
        declared = stream.tell() + shape[0] * shape[1] * dtype.itemsize
        if length != declared:
            raise ValueError(f"it has {length:,} bytes, and its header declares {declared:,}")
    return NumpyArray(path, array, dtype.str, shape[0], shape[1])


def _fault(shape: tuple[int, ...], by_columns: bool, dtype: np.dtype) -> str | None:
    """What keeps an array from being vectors, as the end of a sentence."""
    if dtype.hasobject:
        return "holds Python objects, which are never unpickled; write it as float16 or float32"
    if dtype.kind != "f" or dtype.itemsize not in _ITEM_BYTES:
        return f"holds {dtype}; embeddings are float16, float32 or float64"
    if len(shape) != 2:
        return f"has the shape {shape}; it needs two dimensions, (rows, numbers per vector)"
    if shape[1] == 0:
        return "has vectors of no numbers"
    if by_columns:
        return "lies column by column (Fortran order); write it again after np.ascontiguousarray"
    return None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it lies column by column, and type; the stream then stands at the first number."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is for records, not for numbers")
    return _HEADERS[version](stream)


@contextlib.contextmanager
def _opened(path: str, array: str | None) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of an npy, or of an array in an npz, and how many there are."""
    with contextlib.ExitStack() as stack:
        with _readable(path, array):
            if array is None:
                stream: IO[bytes] = stack.enter_context(open(path, "rb"))
                length = os.fstat(stream.fileno()).st_size
            else:
                archive = stack.enter_context(zipfile.ZipFile(path))
                member = _member(archive, path, array)
                stream, length = stack.enter_context(archive.open(member)), member.file_size
        yield stream, length


def _member(archive: zipfile.ZipFile, path: str, array: str) -> zipfile.ZipInfo:
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if array not in names:
        there = ", ".join(names) or "none"
        raise SourceError(f"source arrays: {path} has no array {array!r}; it has: {there}{did_you_mean(array, names)}")
    return archive.getinfo(f"{array}.npy")


@contextlib.contextmanager
def _readable(path: str, array: str | None) -> Iterator[None]:
    """Turn what numpy, zipfile or the file system says into a SourceError of one line."""
    try:
        yield
    except _DAMAGE as error:
        said = " ".join(str(error).split())[:300]
        kind = "npy" if array is None else "npz"
        raise SourceError(f"{_named(path, array)} cannot be read as {kind}: {said}") from error


def _named(path: str, array: str | None) -> str:
    return f"source arrays: {path}" + ("" if array is None else f": array {array!r}")
