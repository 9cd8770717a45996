"""The views from Python and notebooks: a DuckDB connection that answers SELECTs and does nothing else.

    from curation.analytics.read_only import open_views

    with open_views("data/demo", "demo") as data:
        data.sql("SELECT fate_step, count(*) AS rows FROM samples GROUP BY ALL").to_arrow_table()
        data.sql("SELECT caption FROM samples WHERE clip_score > ? LIMIT 10", [0.3]).fetchall()

The version, and with it every file, is chosen when it is opened: runs that finish later change no answer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb

from curation.analytics.limits import Limits
from curation.analytics.query import connect
from curation.analytics.statement import require_one_select
from schemas.errors import InputError


class ReadOnly:
    """A locked DuckDB connection for texts that nobody has read before.

    DuckDB's own lock is not enough: `COPY … TO '<a file that may be read>' (USE_TMP_FILE false)` would overwrite it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def sql(self, text: str, parameters: Sequence[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """The rows of one SELECT, computed when they are fetched. Raises InputError for anything else."""
        require_one_select(self._connection, text)
        try:
            return self._connection.sql(text, params=list(parameters) if parameters else None)
        except duckdb.Error as error:
            raise InputError(f"sql: {error}") from error

    def close(self) -> None:
        """Close it; relations that were not fetched are gone."""
        self._connection.close()

    def __enter__(self) -> "ReadOnly":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_views(
    store_path: Path | str,
    name: str | None = None,
    with_versions: Mapping[str, str] | None = None,
    *,
    memory_gb: float = 4.0,
) -> ReadOnly:
    """The views of one version: `name`, `name@version` or `name@tag`; None for the only set of the store.

    `with_versions` maps schemas to further versions, as `--with` does. What a question takes in memory is limited, and
    nothing is spilled; its time is not, so interrupt it. Raises InputError where there is no such version.
    """
    set_name, _, version = (name or "").partition("@")
    limits = Limits(memory_gb=memory_gb)
    return ReadOnly(connect(store_path, set_name or None, version or None, with_versions, limits=limits))
