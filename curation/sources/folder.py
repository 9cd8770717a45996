"""`source: {folder: photos/}`: pictures with a `.txt` or `.json` of the same stem beside them, or a captions file.

Where `captions.csv` or `captions.jsonl` lies at the root, it alone gives captions, URLs and columns: one row of it is
one pair, and a picture that it does not name has no caption. Otherwise a row is made as from a tar (samples.py), but
one line end at the end of a `.txt` is no part of the caption. Hidden names and linked folders are passed over.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from curation.sources.files import readable
from curation.sources.folder_captions import FolderCaptions, find_captions
from curation.sources.folder_listing import Entry, chunks_of, list_folder
from curation.sources.json_fields import FieldTypes
from curation.sources.samples import TAKEN, Shape, seen, shape_of
from curation.sources.source import CapturedRow, CapturedSource, SourceFile, files_for
from curation.storage.store import canonical_json
from schemas.errors import SourceError


@dataclass(frozen=True)
class Folder(CapturedSource):
    """A folder of pictures, in chunks of about 1,000."""

    root: str
    chunks: tuple[tuple[Entry, ...], ...]
    shape: Shape
    captions: FolderCaptions | None

    @cached_property
    def files(self) -> Sequence[SourceFile]:
        """The chunks, each with a digest over names, lengths, contents and captions."""
        return tuple(self._digested(chunk) for chunk in self.chunks)

    @property
    def extra(self) -> Mapping[str, pa.DataType]:
        """The columns of the captions file, or the scalar fields of the `.json` files."""
        return self.captions.extra if self.captions else self.shape.extra

    def read(self, index: int) -> Iterator[CapturedRow]:
        """The rows of one chunk; one picture is in memory at a time."""
        return (self._captioned if self.captions else self._beside)(self.chunks[index])

    def _beside(self, chunk: Sequence[Entry]) -> Iterator[CapturedRow]:
        for entry in chunk:
            yield self.shape.row(entry.sample(self.root, with_picture=True))

    def _captioned(self, chunk: Sequence[Entry]) -> Iterator[CapturedRow]:
        captions = self._captions(chunk)
        for entry in chunk:
            sample = entry.sample(self.root, with_picture=True)
            picture = None if sample.failure else next(iter(sample.members.values()))
            for row in captions.get(entry.name, [{}]):
                extra = {name: row.get(name) for name in self.extra}
                yield CapturedRow(row.get("url"), row.get("caption"), picture, sample.origin, extra, sample.failure)

    def _captions(self, chunk: Sequence[Entry]) -> Mapping[str, list[dict[str, Any]]]:
        return self.captions.rows([entry.printable for entry in chunk]) if self.captions else {}

    def _digested(self, chunk: Sequence[Entry]) -> SourceFile:
        digest, length = hashlib.sha256(), 0
        captions = self._captions(chunk)
        for entry in chunk:
            size, files = entry.digest(self.root)
            digest.update(canonical_json(files))
            digest.update(canonical_json([str(sorted(row.items())) for row in captions.get(entry.name, [])]))
            length += size
        name = f"{os.path.basename(os.path.abspath(self.root))}: {chunk[0].printable} to {chunk[-1].printable}"
        return SourceFile(name, length, digest.hexdigest())


def open_folder(root: str, columns: Mapping[str, str] | None = None, limit: int | None = None) -> Folder:
    """Open a folder: every name is listed and every `.json` read once. Raises SourceError."""
    where = "source folder"
    if not os.path.isdir(root):
        raise SourceError(f"{where}: {root} is {'a file' if os.path.exists(root) else 'not there'}; name a folder")
    captions = find_captions(root, columns, where)
    with readable(where):
        entries = list_folder(root)
    counts = captions.counts() if captions else {}
    if captions:
        entries = {name: Entry(name) for name in {*entries, *counts}}
    if not entries:
        raise SourceError(f"{where}: {root} holds no picture ({', '.join(TAKEN)})")
    chunks = tuple(chunks_of([entries[name] for name in sorted(entries)]))
    chunks = chunks[: files_for(limit, (sum(counts.get(entry.name, 1) for entry in chunk) for chunk in chunks))]
    types = FieldTypes()
    seen((entry.sample(root, with_picture=False) for chunk in chunks for entry in chunk if entry.beside), types)
    shape = shape_of(types, None if captions else columns, f"{where}: the .json files of {root}")
    return Folder(root, chunks, shape, captions)
