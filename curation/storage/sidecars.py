"""Sidecars: the columns that one operator added to the rows of one part, in generations that only grow.

A sidecar is dense: one row for every row of its part. `_computed` is false, and the values are NULL, where the row was
not alive when the operator ran, or where a failure may pass. `_status` is NULL where nothing was tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from curation.storage import layout
from curation.storage.store import FileRef, Store
from curation.storage.tables import read_table
from schemas.columns import Column

COMPUTED, STATUS, ERROR = "_computed", "_status", "_error"  # an operator may add columns of the plain names
LOCATIONS = pa.schema([("row", pa.int32()), ("tar", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


@dataclass(frozen=True)
class Sidecar:
    """One committed generation. `locations` says where pictures lie, `ledger` how they were fetched."""

    part: str
    operator: str
    fingerprint: str
    generation: int
    values: FileRef
    locations: FileRef | None = None
    ledgers: tuple[FileRef, ...] = ()
    tars: tuple[FileRef, ...] = ()
    retried_by: tuple[str, ...] = ()  # plans that tried failures of this part again

    @property
    def files(self) -> list[FileRef]:
        """Every file that the commit lists."""
        return [self.values, *([self.locations] if self.locations else []), *self.ledgers, *self.tars]


def latest(store: Store, part: str, operator: str, fingerprint: str) -> Sidecar | None:
    """The newest generation of a sidecar, or None."""
    newest = None
    generation = 0
    while (record := store.get(layout.sidecar(part, operator, fingerprint, generation))) is not None:
        newest = record
        generation += 1
    return _from_record(newest) if newest else None


def commit(store: Store, sidecar: Sidecar) -> bool:
    """Put the commit record of a generation; False when another worker was first."""
    name = layout.sidecar(sidecar.part, sidecar.operator, sidecar.fingerprint, sidecar.generation)
    return store.put(name, _record(sidecar))


def values_schema(adds: Sequence[Column]) -> pa.Schema:
    """The schema of a sidecar's values."""
    fixed = [pa.field(COMPUTED, pa.bool_()), pa.field(STATUS, pa.string()), pa.field(ERROR, pa.string())]
    return pa.schema(fixed + [column.field for column in adds])


def read_values(store: Store, sidecar: Sidecar, columns: Sequence[str] | None = None) -> pa.Table:
    """The values of a sidecar, one row for every row of the part."""
    return read_table(store, sidecar.values, None if columns is None else list(columns))


def read_locations(store: Store, sidecar: Sidecar) -> pa.Table:
    """Where the pictures of a part lie: row, tar, offset, length."""
    return read_table(store, sidecar.locations) if sidecar.locations else LOCATIONS.empty_table()


def _record(sidecar: Sidecar) -> dict[str, object]:
    return {
        "part": sidecar.part,
        "operator": sidecar.operator,
        "fingerprint": sidecar.fingerprint,
        "generation": sidecar.generation,
        "values": sidecar.values.record(),
        "locations": sidecar.locations.record() if sidecar.locations else None,
        "ledgers": [ref.record() for ref in sidecar.ledgers],
        "tars": [ref.record() for ref in sidecar.tars],
        "retried_by": list(sidecar.retried_by),
    }


def _from_record(record: dict) -> Sidecar:  # type: ignore[type-arg]
    return Sidecar(
        record["part"],
        record["operator"],
        record["fingerprint"],
        record["generation"],
        FileRef(**record["values"]),
        FileRef(**record["locations"]) if record["locations"] else None,
        tuple(FileRef(**ref) for ref in record["ledgers"]),
        tuple(FileRef(**ref) for ref in record["tars"]),
        tuple(record["retried_by"]),
    )
