"""The rows of a selection in shard order: by SHA-256(seed, key), those held out last, out of core in one pass.

Held out are the rows with the lowest SHA-256("holdout" + key), so that a larger pool keeps most of a hold-out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.fates import Fates
from curation.ingest import OURS, Snapshot
from curation.part_rows import PartRows
from curation.stage import Plan
from curation.storage.out_of_core import database, in_order
from curation.storage.store import Store
from schemas.columns import CAPTION, KEY, URL

PICTURES = pa.schema(
    [("tar", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("stored_sha256", pa.string())]
)
_HELD_OUT = f"{OURS}held_out"


@dataclass(frozen=True)
class Shuffle:
    """What is shuffled: the alive rows, their columns (beside key, url and caption), and how."""

    store: Store
    plan: Plan
    snapshot: Snapshot
    fates: Fates
    columns: Sequence[str]
    with_pictures: bool
    seed: int
    holdout_rows: int

    def tables(self, sizes: Sequence[int]) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """(rows, where their pictures lie) in tables of those sizes."""
        names = list(dict.fromkeys([KEY.name, URL.name, CAPTION.name, *self.columns]))
        fields = [self.plan.columns[name].column.named(name).field for name in names]
        schema = pa.schema([*fields, *(self._pictures_schema), pa.field(_HELD_OUT, pa.bool_())])
        order = f"{_HELD_OUT}, sha256('{self.seed} ' || {KEY.name})"
        for table in in_order(self.store, schema, self._batches(names, schema), order, sizes):
            places = table.select(self._pictures_schema.names)
            yield table.select(names), places.rename_columns(PICTURES.names) if self.with_pictures else None

    @property
    def _pictures_schema(self) -> pa.Schema:
        fields = PICTURES if self.with_pictures else ()
        return pa.schema([pa.field(OURS + field.name, field.type) for field in fields])

    def _batches(self, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        held_out = self._held_out()
        for rows, chosen in self._alive():
            table = rows.table(names, chosen)
            columns = [*table.columns, *self._places(rows, chosen), pc.is_in(table[KEY.name], held_out)]
            yield from pa.table(columns, names=schema.names).cast(schema).combine_chunks().to_batches()

    def _alive(self) -> Iterator[tuple[PartRows, np.ndarray]]:
        for member in self.snapshot.parts:
            chosen = self.fates.alive_rows(member.part.name)
            if len(chosen):
                yield PartRows(self.store, self.plan, member, self.fates.marks.get(member.part.name)), chosen

    def _places(self, rows: PartRows, chosen: np.ndarray) -> list[pa.ChunkedArray]:
        """Where the pictures of chosen rows lie, as columns of PICTURES."""
        if not self.with_pictures:
            return []
        assert self.plan.picture_step is not None
        operator = rows.operator(self.plan.picture_step)
        at = pa.array(np.searchsorted(operator.location_table["row"].to_numpy(), chosen))
        places = operator.location_table.select(PICTURES.names[:3]).take(at)
        return [*places.columns, operator.columns(["stored_sha256"])["stored_sha256"].take(pa.array(chosen))]

    def _held_out(self) -> pa.Array:
        """Keys of the rows that are held out."""
        if not self.holdout_rows:
            return pa.array([], pa.string())
        keys = (rows.table([], chosen).combine_chunks().to_batches() for rows, chosen in self._alive())
        reader = pa.RecordBatchReader.from_batches(pa.schema([KEY.field]), (batch for each in keys for batch in each))
        with database(self.store) as connection:
            connection.register("alive", reader)
            query = f"SELECT key FROM alive ORDER BY sha256('holdout' || key) LIMIT {self.holdout_rows}"
            return connection.sql(query).to_arrow_table()["key"].combine_chunks()
