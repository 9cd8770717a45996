"""From `source:` in a specification to what ingest reads."""

from curation.sources.arrays import TableWithArrays, open_arrays
from curation.sources.files import readable
from curation.sources.folder import open_folder
from curation.sources.formats.format import first_row
from curation.sources.img2dataset import open_img2dataset
from curation.sources.manifest import ManifestSource, open_manifest
from curation.sources.source import CapturedRow, CapturedSource, SourceFile
from curation.sources.table import TableSource, database, open_table
from curation.sources.webdataset import open_webdataset
from schemas.errors import SourceError
from schemas.pipeline import Source

__all__ = [
    "CapturedRow",
    "CapturedSource",
    "ManifestSource",
    "SourceFile",
    "TableSource",
    "TableWithArrays",
    "open_source",
]


def open_source(spec: Source, limit: int | None = None) -> TableSource | TableWithArrays | CapturedSource:
    """Open a source and take its first `limit` rows; what can be known to be wrong raises InputError."""
    if spec.table is not None:
        table = _with_rows(open_table(spec.table, spec.columns, limit))
        return open_arrays(table, spec.arrays) if spec.arrays else table
    if spec.manifest is not None:
        return open_manifest(spec.manifest, spec.columns, limit)
    if spec.webdataset is not None:
        return open_webdataset(spec.webdataset, spec.columns, limit)
    if spec.img2dataset is not None:
        return open_img2dataset(spec.img2dataset, spec.columns, limit)
    assert spec.folder is not None, "a specification names exactly one kind of source"
    return open_folder(spec.folder, spec.columns, limit)


def _with_rows(table: TableSource) -> TableSource:
    """The table, if it has any row: a set of nothing would be its newest version."""
    paths = [path for path, _ in table.described]
    with database() as connection, readable("source table"):
        found = first_row(connection, f"SELECT 1 FROM ({table.relation()}) LIMIT 1")
    if not found:
        others = f" and {len(paths) - 1:,} more files hold" if len(paths) > 1 else " holds"
        raise SourceError(f"source table: {paths[0]}{others} column names and no row; write rows into it")
    return table
