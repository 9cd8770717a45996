"""What an operator computed in a part, on its way to become the next generation of its sidecar."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from curation.fetch.ledger import LEDGER
from curation.part_rows import OperatorRows, PartRows
from curation.stage import OperatorStep, Plan
from curation.storage import sidecars
from curation.storage.pictures import PictureWriter
from curation.storage.sidecars import COMPUTED, ERROR, STATUS, Sidecar
from curation.storage.tables import put_table
from schemas.errors import RunError


def open_rows(plan: Plan, committed: OperatorRows) -> np.ndarray:
    """Rows that would be computed if they were alive, bool_N: not tried, or to be tried again under this plan."""
    if plan.retry is None or retried(plan, committed):
        return ~committed.tried
    again = committed.failed & ~committed.computed
    if plan.retry:
        status = committed.outcome[STATUS].to_numpy(zero_copy_only=False)
        again &= np.isin(status.astype(object), list(plan.retry))
    return ~committed.tried | again


def retried(plan: Plan, committed: OperatorRows) -> bool:
    """Whether failures were tried again under this plan."""
    return committed.sidecar is not None and plan.name in committed.sidecar.retried_by


class NewGeneration:
    """New values, pictures and lines of the ledger of one operator in one part, until they are committed."""

    def __init__(self, part: PartRows, step: OperatorStep, committed: OperatorRows) -> None:
        self._part = part
        self._step = step
        self._committed = committed
        self._new_rows: list[np.ndarray] = []
        self._new_values: list[pa.Table] = []
        self._pictures = PictureWriter(part.store) if step.brings_pictures else None
        self._ledger: list[dict[str, Any]] = []

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(len(rows) for rows in self._new_rows)

    def add(self, rows: np.ndarray, values: pa.Table, ledger: Iterable[dict[str, Any]] = ()) -> None:
        """Take in the values of rows (positions in the part)."""
        self._new_rows.append(rows)
        self._new_values.append(values)
        self._ledger.extend(ledger)

    def add_picture(self, row: int, stored: bytes, original: bytes | None) -> None:
        """Take in a row's picture, and what it was made of where that is kept too."""
        assert self._pictures is not None
        self._pictures.add(row, self._part.addresses[row], stored, original)

    def adopt_picture(self, row: int, place: tuple[str, int, int]) -> None:
        """Let a row use a picture that lies in the store already."""
        assert self._pictures is not None
        self._pictures.adopt(row, place)

    def close(self) -> None:
        """Let go of what was not committed."""
        if self._pictures is not None:
            self._pictures.discard()

    def commit(self, *, whole: bool = True) -> bool:
        """Put what was computed as the next generation; False where another worker was first for some of it.

        What the other has put stands; what it lacks of ours follows in the generation after. Where an error broke the
        work off it is not `whole`: failures that were not reached stay to be tried again.
        """
        first = True
        while self._new_rows or (whole and self._marks_retry):
            if self._put(whole):
                return first
            self._give_way()
            first = False
        return first

    @property
    def _marks_retry(self) -> bool:
        """Whether the commit is to note that failures were tried again under this plan."""
        plan, committed = self._part.plan, self._committed
        return plan.retry is not None and not retried(plan, committed) and committed.sidecar is not None

    @property
    def _places(self) -> np.ndarray:
        return np.concatenate(self._new_rows) if self._new_rows else np.zeros(0, np.int64)

    def _put(self, whole: bool) -> bool:
        store, old, plan = self._part.store, self._committed.sidecar, self._part.plan
        rows = self._places
        locations, tars = self._pictures.finish(old, rows) if self._pictures else (None, ())
        ledger = pa.Table.from_pylist(self._ledger, schema=LEDGER)
        ledgers = (put_table(store, ledger),) if self._ledger else ()
        marks_retry = whole and plan.retry is not None and not retried(plan, self._committed)
        sidecar = Sidecar(
            self._part.name,
            self._step.name,
            self._committed.fingerprint,
            old.generation + 1 if old else 0,
            put_table(store, self._dense(rows)),
            locations,
            (*(old.ledgers if old else ()), *ledgers),
            tars,
            (*(old.retried_by if old else ()), *([plan.name] if marks_retry else [])),
        )
        return sidecars.commit(store, sidecar)

    def _give_way(self) -> None:
        """Read what another worker has put, and keep of ours what it lacks."""
        ours = None if self._step.operator.captured else self._dense(self._places)
        part = self._part
        self._committed = OperatorRows(part.store, part.name, part.rows, self._step, self._committed.fingerprint)
        if ours is not None:
            self._require_equal(ours)
        still_open = open_rows(part.plan, self._committed)
        kept = [(mine, values, still_open[mine]) for mine, values in zip(self._new_rows, self._new_values, strict=True)]
        self._new_values = [values.filter(pa.array(mask)) for _, values, mask in kept if mask.any()]
        self._new_rows = [mine[mask] for mine, _, mask in kept if mask.any()]

    def _dense(self, new: np.ndarray) -> pa.Table:
        """All values of the part: the committed ones, and over them those of the new rows."""
        schema = sidecars.values_schema(self._step.values)
        base = self._committed.recorded(schema.names).cast(schema)
        places = np.arange(self._part.rows)
        places[new] = self._part.rows + np.arange(len(new))
        return pa.concat_tables([base, *(table.cast(schema) for table in self._new_values)]).take(pa.array(places))

    def _require_equal(self, ours: pa.Table) -> None:
        """Two computations of a pure operator must agree."""
        theirs = self._committed.recorded(ours.column_names)
        both = pa.array(np.flatnonzero(theirs[COMPUTED].to_numpy() & ours[COMPUTED].to_numpy()))
        names = [name for name in ours.column_names if name != ERROR]  # the sentence may name an address, a time
        if not all(same_bits(theirs[name].take(both), ours[name].take(both)) for name in names):
            raise RunError(
                f"part {self._part.name}, {self._step.label}: two computations of the same rows gave different values; "
                f"the operator {self._step.name} is not deterministic: declare `captured = True` or mend it"
            )


def same_bits(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether two columns hold the same, bit by bit: a NaN equals itself."""
    bits = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}.get(one.type)
    if bits is None:
        return bool(one.equals(other))
    return bool(one.combine_chunks().view(bits).equals(other.combine_chunks().view(bits)))
