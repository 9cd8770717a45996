"""`source: {webdataset: shards/*.tar}`: tars that others wrote, plain or packed (.gz, .zst).

A sample's name is its folder and its base name up to the first dot. Its caption is its `.txt`, or the JSON field
`caption` where there is none, or the field that `columns: {caption: …}` names (`caption: txt`: only the .txt); its URL
is the JSON field `url`. The scalar fields of its `.json` ride along; reserved names get `source_` before them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from curation.sources.files import digested, find_files, labels
from curation.sources.json_fields import FieldTypes
from curation.sources.samples import PICTURES, TAKEN, TEXTS, Shape, seen, shape_of
from curation.sources.source import CapturedRow, CapturedSource, SourceFile, files_for
from curation.sources.tar_samples import read_samples
from schemas.errors import SourceError


@dataclass(frozen=True)
class WebDataset(CapturedSource):
    """Tars of samples."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    shape: Shape

    @cached_property
    def files(self) -> Sequence[SourceFile]:
        """The tars with their digests."""
        return tuple(digested(path) for path in self.paths)

    @property
    def extra(self) -> Mapping[str, pa.DataType]:
        """The scalar fields of the samples' JSON."""
        return self.shape.extra

    def read(self, index: int) -> Iterator[CapturedRow]:
        """The rows of one tar; one sample is in memory at a time."""
        for sample in read_samples(self.paths[index], self.labels[index], (*PICTURES, *TEXTS)):
            yield self.shape.row(sample)


def open_webdataset(
    paths: str | Sequence[str], columns: Mapping[str, str] | None = None, limit: int | None = None
) -> WebDataset:
    """Open tars: every header and every JSON is read once, for the columns' types and for damage.

    With a limit only as many tars as it needs. Raises SourceError.
    """
    where = "source webdataset"
    found = find_files(paths, where)
    names = labels(found)
    types, rows = FieldTypes(), 0

    def scans() -> Iterator[int]:
        nonlocal rows
        for path, label in zip(found, names, strict=True):
            count = seen(read_samples(path, label, ("json",)), types)
            rows += count
            yield count

    try:
        used = files_for(limit, scans())
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error
    if not rows:
        others = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        raise SourceError(f"{where}: {found[0]}{others}: holds no sample (pictures are {', '.join(TAKEN)})")
    shape = shape_of(types, columns, f"{where}: the JSON of {found[0]}" + (" and others" if len(found) > 1 else ""))
    return WebDataset(found[:used], names[:used], shape)
