"""Apache Parquet: names and types are the file's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow.parquet as pq

from curation.sources.formats.format import Columns, Described, Format, paths_sql


@dataclass(frozen=True)
class Parquet(Format):
    """Parquet as DuckDB reads it."""

    def describe(self, connection: duckdb.DuckDBPyConnection, path: str) -> Columns:
        """The columns of one file; DuckDB renames columns that differ by case only, so the names are Arrow's."""
        relation = connection.sql(f"SELECT * FROM read_parquet({paths_sql([(path, ())])}, hive_partitioning = false)")
        return list(zip(pq.read_schema(path).names, map(str, relation.types), strict=True))

    def scan(self, files: Sequence[Described], types: Mapping[str, str]) -> str:
        """SQL that selects columns of files by name."""
        alike = all(columns == files[0][1] for _, columns in files)
        options = f"hive_partitioning = false, union_by_name = {str(not alike).lower()}"
        return f"SELECT * FROM read_parquet({paths_sql(files)}, {options})"
