"""Reads pickles that hold plain values, and refuses every other: opening a file must never run what is in it."""

import pickle
from pathlib import Path
from typing import Any

from schemas.errors import InputError


class _Plain(pickle.Unpickler):
    """Builds dicts, lists, tuples, sets, text and numbers, all of which need no name of a class or function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are read")


def read_pickle(path: Path) -> Any:
    """What a pickle holds, old Python's byte strings as text. Raises InputError for anything that is not plain."""
    try:
        with open(path, "rb") as stream:
            return _Plain(stream, encoding="latin-1").load()
    except Exception as error:  # a pickle is a program; a broken one fails in any way it likes
        raise InputError(f"annotations {path}: cannot be read as a pickle of plain values: {error}") from error
