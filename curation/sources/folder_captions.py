"""`captions.csv` or `captions.jsonl` at the root of a folder of pictures: file, caption and more, any number a file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.sources.files import readable
from curation.sources.mapping import DEFAULT
from curation.sources.table import TableSource, database, open_table
from schemas.errors import SourceError

NAMES = ("captions.csv", "captions.jsonl")
FILE = "file"  # the picture's path below the folder
_PATH = f"coalesce(regexp_replace({FILE}, '^([.]/)+', ''), '')"


@dataclass(frozen=True)
class FolderCaptions:
    """The rows of a captions file. Picklable."""

    table: TableSource

    @property
    def extra(self) -> dict[str, pa.DataType]:
        """The file's other columns."""
        return {name: kind for name, kind in self.table.extra.items() if name != FILE}

    def counts(self) -> dict[str, int]:
        """How many rows each picture has, by its path below the folder."""
        with database() as connection, readable(self.table.described[0][0]):
            query = f"SELECT {_PATH}, count(*) FROM ({self.table.relation()}) GROUP BY ALL"
            return dict(connection.execute(query).fetchall())

    def rows(self, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of some pictures, in the order of the captions file."""
        found: dict[str, list[dict[str, Any]]] = {}
        with database() as connection, readable(self.table.described[0][0]):
            connection.register("wanted", pa.table({"wanted": pa.array(names, pa.string())}))
            rows = connection.sql(
                f"""
                SELECT * EXCLUDE (place) FROM (
                    SELECT * REPLACE ({_PATH} AS {FILE}), row_number() OVER () AS place
                    FROM ({self.table.relation()}))
                WHERE {FILE} IN (FROM wanted) ORDER BY place
                """
            ).to_arrow_table()
        for row in rows.to_pylist():
            found.setdefault(row.pop(FILE), []).append(row)
        return found


def find_captions(root: str, columns: Mapping[str, str] | None, where: str) -> FolderCaptions | None:
    """The captions file of a folder, if it has one; `url` may be lacking. Raises SourceError."""
    paths = [path for path in (os.path.join(root, name) for name in NAMES) if os.path.isfile(path)]
    if len(paths) > 1:
        raise SourceError(f"{where}: both {paths[0]} and {paths[1]} are there; leave one")
    if not paths:
        return None
    asked = {FILE: FILE} | dict(columns or DEFAULT)
    if asked.get("url") == "url":
        del asked["url"]  # rides along where it is there
    table = open_table(paths[0], asked, where=where)
    if table.extra[FILE] != pa.string():
        raise SourceError(f"{where}: {paths[0]}: column {asked[FILE]!r} must hold paths below {root}, as text")
    return FolderCaptions(table)
