"""Asks our own questions about a version: the .sql files beside this one, each read and answered as rows."""

import contextlib
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from curation.analytics.answer import json_value
from curation.analytics.query import connect
from curation.storage.store import Store
from curation.versions import Chosen
from schemas.errors import InputError
from schemas.manifest import Manifest

Answer = list[dict[str, Any]]
CAPTION = (  # of a caption, SQL: as much as is shown, without characters that steer terminals and browsers
    "regexp_replace(CASE WHEN length(caption) > 300 THEN left(caption, 299) || '…' ELSE caption END, "
    "'[[:cntrl:]]', ' ', 'g')"
)


class Questions:
    """A version's views, and the columns that its samples have."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, chosen: Chosen) -> None:
        self._connection = connection
        self.store = store
        self.chosen = chosen
        described = connection.execute("DESCRIBE samples").fetchall()
        self.types: dict[str, str] = {name: kind for name, kind, *_ in described}  # column of samples → type

    @property
    def manifest(self) -> Manifest:
        """The version's manifest."""
        return self.chosen.manifest

    @property
    def labels(self) -> list[str]:
        """The steps of the funnel in order, the source first."""
        return [entry.step for entry in self.manifest.funnel]

    def ask(self, name: str, values: dict[str, Any] | None = None, **pieces: str) -> Answer:
        """The rows that `name`.sql answers with; `pieces` are SQL that stands in it as {piece}."""
        text = (resources.files(__package__) / f"{name}.sql").read_text(encoding="utf-8")
        for piece, sql in pieces.items():
            text = text.replace(f"{{{piece}}}", sql)
        result = self._connection.execute(text, values or {})
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, map(json_value, row), strict=True)) for row in result.fetchall()]


@contextlib.contextmanager
def questions(store: Store, chosen: Chosen) -> Iterator[Questions]:
    """Questions about a version; what does not fit into memory is spilled to a temporary folder."""
    manifest = chosen.manifest
    with (
        tempfile.TemporaryDirectory(prefix="pairmill-") as folder,
        connect(store.root, manifest.name, manifest.version, evaluations=False, spill=Path(folder)) as connection,
    ):
        try:
            yield Questions(connection, store, chosen)
        except duckdb.IOException as error:
            raise InputError(
                f"report {chosen.label}: {error}; `pairmill verify {chosen.path}` says what is damaged"
            ) from error
