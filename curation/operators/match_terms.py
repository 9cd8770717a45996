"""Which terms of a list a caption holds, as MetaCLIP matches its metadata (Xu et al. 2023, arXiv 2309.16671)."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curation.operator import Batch, Operator, Output, Resources, setting
from schemas import columns as c
from schemas.columns import Column
from schemas.errors import InputError, RunError

_PUNCTUATION = re.compile(r"([,.;:?!`])")
_SPACES = str.maketrans("\t\n\r", "   ")


class MatchTerms(Operator):
    """The terms of a list that the caption holds as whole words, case-sensitive (MetaCLIP's substring matching)."""

    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=2)
    can_fail: ClassVar[bool] = False

    terms: str = setting(..., "file of terms: one a line, or a JSON list of texts (.json)", examples=["terms.txt"])
    terms_sha256: str = Field(
        "", description="SHA-256 that the file must have; what it has is taken where none is given"
    )

    @property
    def reads(self) -> tuple[Column, ...]:
        """The caption."""
        return (c.CAPTION,)

    @property
    def adds(self) -> tuple[Column, ...]:
        """The terms, sorted, each once; an empty list for a caption that holds none."""
        return (c.MATCHED_TERMS,)

    def bound(self, types: Mapping[str, pa.DataType]) -> "MatchTerms":
        """The operator with its file's digest, which stands in the fingerprint in place of the path."""
        return self.model_copy(update={"terms": str(Path(self.terms).absolute()), "terms_sha256": self._digest})

    @property
    def _digest(self) -> str:
        return _read(self.terms)[0]

    def check(self) -> None:
        """The file can be read, and is the one that is meant."""
        if self.terms_sha256 not in ("", self._digest):
            raise InputError(f"terms: {self.terms} has SHA-256 {self._digest}, but 'terms_sha256' wants another")

    def open(self) -> Any:
        """An automaton (Aho-Corasick) of the terms. Raises RunError where the file is not the one that was planned."""
        try:
            self.check()
        except InputError as error:
            raise RunError(f"{error}; it must not change during a run and be the same on every node") from error
        return _automaton(self.terms, self._digest)

    def run(self, batch: Batch, opened: Any) -> Output:
        """The terms of each caption; a missing caption is an empty one."""
        captions = batch[c.CAPTION.name].to_pylist()
        found = [sorted({term for _, term in opened.iter(spaced(caption or ""))}) for caption in captions]
        return Output({c.MATCHED_TERMS.name: found})


def spaced(caption: str) -> str:
    """A caption with spaces around it and around each , . ; : ? ! ` and in place of tabs and line ends.

    A term occurs if it stands there between two spaces. So a term that holds one of these characters never does.
    """
    return _PUNCTUATION.sub(r" \1 ", f" {caption} ").translate(_SPACES)


def _read(path: str) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a file of terms, and its different terms. Raises InputError."""
    try:
        stat = Path(path).stat()
        return _read_once(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"terms: {path} cannot be read: {error.strerror}") from error


@lru_cache(4)
def _read_once(path: str, *_: int) -> tuple[str, tuple[str, ...]]:
    content = Path(path).read_bytes()
    try:
        text = content.decode()
        found = json.loads(text) if path.endswith(".json") else [line.strip() for line in text.split("\n")]
    except ValueError as error:
        raise InputError(f"terms: {path} cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(term, str) for term in found):
        raise InputError(f"terms: {path} holds no JSON list of texts, as in MetaCLIP's metadata.json")
    terms = tuple(dict.fromkeys(term for term in found if term))
    if not terms:
        raise InputError(f"terms: {path} holds no term; write one a line")
    return hashlib.sha256(content).hexdigest(), terms


@lru_cache(4)
def _automaton(path: str, sha256: str) -> Any:
    from ahocorasick import Automaton

    automaton = Automaton()
    for term in _read(path)[1]:
        automaton.add_word(f" {term} ", term)
    automaton.make_automaton()
    return automaton
