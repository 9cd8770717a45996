"""`source: {img2dataset: out/}`: what img2dataset wrote as webdataset, NNNNN.tar with NNNNN.parquet beside it.

URL, caption and columns are the Parquet's, joined by img2dataset's key; the tar gives the pictures. A row whose
status is not `success` is a failed row. Key, status and error message do not ride along unless they are mapped.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.operator import Failure
from curation.sources.files import digested, find_files, labels, readable
from curation.sources.mapping import DEFAULT
from curation.sources.samples import PICTURES, Sample
from curation.sources.source import CapturedRow, CapturedSource, SourceFile, files_for
from curation.sources.table import TableSource, database, open_table
from curation.sources.tar_samples import read_samples
from schemas.errors import SourceError

# No column of img2dataset's begins with a space.
_KEY, _STATUS, _ERROR = " key", " status", " error"
_THEIRS = {_KEY: "key", _STATUS: "status", _ERROR: "error_message"}
_SUCCESS = "success"


@dataclass(frozen=True)
class Img2Dataset(CapturedSource):
    """Shards of img2dataset."""

    tars: tuple[str, ...]
    labels: tuple[str, ...]
    table: TableSource  # one Parquet per tar, in the same order

    @cached_property
    def files(self) -> Sequence[SourceFile]:
        """The shards; a digest stands for tar and Parquet together."""
        pairs = zip(self.tars, self.table.files, strict=False)
        return tuple(_together(digested(tar), parquet) for tar, parquet in pairs)

    @property
    def extra(self) -> Mapping[str, pa.DataType]:
        """The Parquets' own columns."""
        return {name: kind for name, kind in self.table.extra.items() if name not in _THEIRS}

    def read(self, index: int) -> Iterator[CapturedRow]:
        """The pictures in the order of the tar, then the rows without one in the order of the Parquet."""
        parquet, label = self.table.described[index][0], self.labels[index]
        with database() as connection, readable(parquet):
            table = connection.sql(self.table.relation(file=index)).to_arrow_table()
        places: dict[str, int] = {}
        repeated = []
        for place, key in enumerate(table[_KEY].to_pylist()):
            if places.setdefault(str(key), place) != place:
                repeated.append(place)
        for sample in read_samples(self.tars[index], label, PICTURES):
            key = sample.stem.rpartition("/")[2]
            yield self._with_picture(sample, _record(table, places.pop(key)) if key in places else None)
        for place in sorted((*places.values(), *repeated)):
            record = _record(table, place)
            failure = _failure(record, place in repeated)
            yield self._row(record, f"{label}:{record[_KEY]}" + (f":{place}" if place in repeated else ""), failure)

    def _with_picture(self, sample: Sample, record: dict[str, Any] | None) -> CapturedRow:
        if record is None:
            sample.fail("not_in_parquet", f"{sample.origin}: the Parquet beside the tar has no such key")
            return CapturedRow(None, None, None, sample.origin, dict.fromkeys(self.extra), sample.failure)
        if sample.picture is None:
            sample.fail("no_picture", f"{sample.origin}: has no picture in the tar (only {', '.join(sample.members)})")
        picture = sample.members[sample.picture] if sample.picture and not sample.failure else None
        return self._row(record, sample.origin, sample.failure, picture)

    def _row(
        self, record: Mapping[str, Any], origin: str, failure: Failure | None, picture: bytes | None = None
    ) -> CapturedRow:
        extra = {name: record[name] for name in self.extra}
        return CapturedRow(record["url"], record["caption"], picture, origin, extra, failure)


def open_img2dataset(
    paths: str | Sequence[str], columns: Mapping[str, str] | None = None, limit: int | None = None
) -> Img2Dataset:
    """Open the shards of folders, or those that globs name. Raises SourceError."""
    where = "source img2dataset"
    tars = find_files(_tars(paths, where), where)
    parquets = [f"{os.path.splitext(tar)[0]}.parquet" for tar in tars]
    for tar, parquet in zip(tars, parquets, strict=True):
        if not os.path.exists(parquet):
            raise SourceError(
                f"{where}: {tar} has no {os.path.basename(parquet)} beside it; img2dataset writes it when a shard is "
                "finished: run img2dataset again to its end, or leave the tar out"
            )
    table = open_table(parquets, {**DEFAULT, **(columns or {}), **_THEIRS}, where=where, lenient=True)
    with readable(where):
        rows = [pq.read_metadata(parquet).num_rows for parquet in parquets]
    if not any(rows):
        raise SourceError(f"{where}: {tars[0]}: the Parquet beside it has no row; run img2dataset over more URLs")
    used = files_for(limit, rows)
    return Img2Dataset(tars[:used], labels(tars)[:used], table)


def _tars(paths: str | Sequence[str], where: str) -> list[str]:
    """The tars of folders; other paths and globs as they are."""
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        names = sorted(os.listdir(path))
        tars = [name for name in names if name.endswith(".tar")]
        stems = {os.path.splitext(name)[0] for name in tars}
        lone = [n for n in names if n.endswith(".parquet") and n[:-8].isdigit() and n[:-8] not in stems]
        if lone:
            raise SourceError(f"{where}: {os.path.join(path, lone[0])} has no {lone[0][:-8]}.tar beside it")
        if not tars:
            raise SourceError(f"{where}: {path} holds no .tar; img2dataset writes them with --output_format webdataset")
        found += [os.path.join(path, name) for name in tars]
    return found


def _record(table: pa.Table, place: int) -> dict[str, Any]:
    return table.slice(place, 1).to_pylist()[0]


def _failure(record: Mapping[str, Any], repeated: bool) -> Failure:
    """Why a row of the Parquet has no picture in the tar."""
    if repeated:
        return Failure("duplicate_name", f"key {record[_KEY]} stands in the Parquet more than once")
    if record[_STATUS] == _SUCCESS:
        return Failure("missing", f"the Parquet says success, and the tar has no sample {record[_KEY]}")
    return Failure(str(record[_STATUS]), f"img2dataset: {record[_ERROR] or record[_STATUS]}")


def _together(tar: SourceFile, parquet: SourceFile) -> SourceFile:
    both = hashlib.sha256(f"{tar.sha256}{parquet.sha256}".encode()).hexdigest()
    return SourceFile(tar.path, tar.bytes + parquet.bytes, both)
