"""The rows of one part as a table: source columns, sidecars and marks, joined by position and read when asked for."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from curation.forget.tombstones import tombstones_of
from curation.ingest import MEMBER, Member
from curation.operator import Failure
from curation.stage import OperatorStep, Plan
from curation.storage import sidecars
from curation.storage.sidecars import COMPUTED, ERROR, LOCATIONS, STATUS, Sidecar
from curation.storage.store import Store
from curation.storage.tables import read_table
from schemas.columns import KEY, SHA256, STORED_SHA256
from schemas.errors import StoreError

_OF_PICTURES = {SHA256.name, STORED_SHA256.name}  # what tombstones know a picture by

Beside = Callable[[], pa.Table]  # gives the columns that a policy of the operator looks at


class OperatorRows:
    """What is committed of one operator's results in one part; a policy of the plan may refuse some of it."""

    def __init__(
        self, store: Store, part: str, rows: int, step: OperatorStep, fingerprint: str, beside: Beside | None = None
    ) -> None:
        self._store = store
        self._rows = rows
        self._beside = beside
        self.step = step
        self.fingerprint = fingerprint
        self.sidecar: Sidecar | None = sidecars.latest(store, part, step.name, fingerprint)

    @cached_property
    def outcome(self) -> pa.Table:
        """`computed` and status of every row."""
        return self.columns([COMPUTED, STATUS])

    @cached_property
    def computed(self) -> np.ndarray:
        """Which rows have a final outcome, bool_N."""
        return self.outcome[COMPUTED].to_numpy()

    @cached_property
    def tried(self) -> np.ndarray:
        """Which rows have any outcome, passing failures included, bool_N."""
        return self.outcome[STATUS].is_valid().to_numpy()

    @cached_property
    def failed(self) -> np.ndarray:
        """Which rows were tried and failed, bool_N."""
        ok = self.outcome[STATUS].to_numpy(zero_copy_only=False)
        return self.tried & (ok != "ok")

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns as the plan sees them: a row that its policy refuses has failed."""
        recorded = self.recorded(names)
        if self._beside is None or self.sidecar is None or not {STATUS, ERROR} & set(names):
            return recorded
        return judged(recorded, self._refusals)

    @cached_property
    def _refusals(self) -> Mapping[int, Failure]:
        assert self._beside is not None
        own = [column.name for column in self.step.values]
        return self.step.operator.refusals(self.recorded(own), self._beside())

    def recorded(self, names: Sequence[str]) -> pa.Table:
        """Columns of the sidecar, one row for every row of the part; NULL where there is no sidecar."""
        if self.sidecar is not None:
            return sidecars.read_values(self._store, self.sidecar, names)
        schema = sidecars.values_schema(self.step.values)
        fields = [schema.field(name) for name in names]
        empty = {f.name: pa.nulls(self._rows, f.type) for f in fields}
        if COMPUTED in empty:
            empty[COMPUTED] = pa.array(np.zeros(self._rows, bool))
        return pa.table(empty, schema=pa.schema(fields))

    @cached_property
    def location_table(self) -> pa.Table:
        """Where the stored pictures lie: row (ascending), tar, offset, length."""
        if self.sidecar is None:
            return LOCATIONS.empty_table()
        return sidecars.read_locations(self._store, self.sidecar)

    @cached_property
    def locations(self) -> dict[int, tuple[str, int, int]]:
        """Where the stored pictures lie: row → (tar, offset, length)."""
        found = self.location_table.to_pydict()
        places = zip(found["tar"], found["offset"], found["length"], strict=True)
        return dict(zip(found["row"], places, strict=True))


class PartRows:
    """One part of a snapshot under a plan. `marks` holds the columns that barriers added: name → values of the part."""

    def __init__(self, store: Store, plan: Plan, member: Member, marks: Mapping[str, pa.Array] | None = None) -> None:
        self.store = store
        self.plan = plan
        self.member = member
        self.name = member.part.name
        self.rows = member.part.rows
        self._marks = marks or {}
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._operators: dict[int, OperatorRows] = {}

    @cached_property
    def is_member(self) -> np.ndarray:
        """Which rows of the part belong to the snapshot, bool_N."""
        return read_table(self.store, self.member.file, [MEMBER])[MEMBER].to_numpy()

    def operator(self, index: int) -> OperatorRows:
        """What is committed of the operator at that step (-1: the capture)."""
        if index not in self._operators:
            step = self.plan.producer(index)
            riding = {name: self._values_digest(name) for name in step.rides_on}
            fingerprint = step.fingerprint(riding)
            beside = partial(self._beside, step) if step.judges_by else None
            self._operators[index] = OperatorRows(self.store, self.name, self.rows, step, fingerprint, beside)
        return self._operators[index]

    def column(self, name: str) -> pa.ChunkedArray:
        """A visible column, one value for every row of the part."""
        if name not in self._columns:
            self._load([name])
        return self._columns[name]

    def table(self, names: Sequence[str], rows: np.ndarray | None = None) -> pa.Table:
        """The key and visible columns; only `rows` where given."""
        names = [name for name in dict.fromkeys(names) if name != KEY.name]
        self._load([KEY.name, *names])
        table = pa.table({name: self._columns[name] for name in [KEY.name, *names]})
        return table if rows is None else table.take(pa.array(rows))

    @cached_property
    def addresses(self) -> list[str]:
        """The address of each row's picture: 128 bits of its URL's digest, hex."""
        found: list[str] = read_table(self.store, self.member.part.file, ["address"])["address"].to_pylist()
        return found

    def forgotten(self, values: pa.Table) -> np.ndarray:
        """Which values of the operator that brings pictures tell of a forgotten one, bool_N."""
        tombstones = tombstones_of(self.store, self.plan.tombstones)
        found_N = np.zeros(values.num_rows, bool)
        for name in _OF_PICTURES & set(values.column_names) if tombstones.of_pictures else ():
            found_N |= tombstones.matches("picture", values[name])
        return found_N

    def forgotten_pictures(self, index: int) -> np.ndarray:
        """Which rows have a forgotten picture by what the operator at that step committed, bool_N."""
        names = [value.name for value in self.plan.producer(index).values if value.name in _OF_PICTURES]
        if not self.plan.tombstones or not names:
            return np.zeros(self.rows, bool)
        return self.forgotten(self.operator(index).recorded(names))

    def stored(self, rows: Sequence[int]) -> list[bytes]:
        """The stored pictures of rows, read where they lie."""
        assert self.plan.picture_step is not None
        locations = self.operator(self.plan.picture_step).locations
        return read_pictures(self.store, [locations[row] for row in rows])

    def _load(self, names: Sequence[str]) -> None:
        wanted: dict[tuple[str, int], list[tuple[str, str]]] = {}
        for name in names:
            if name in self._columns:
                continue
            where = self.plan.columns[name]
            wanted.setdefault((where.kind, where.step), []).append((name, where.name or name))
        for (kind, step), pairs in wanted.items():
            own = [own for _, own in pairs]
            if kind == "part":
                table = read_table(self.store, self.member.part.file, own)
            elif kind == "source":
                table = read_table(self.store, self.member.file, own)
            elif kind == "sidecar":
                table = self.operator(step).columns(own)
            else:
                types = {name: self.plan.columns[name].column.type for name, _ in pairs}
                # NULL where no row of the part came to the step.
                table = pa.table({n: self._marks.get(n, pa.nulls(self.rows, types[n])) for n in own})
            for name, own_name in pairs:
                self._columns[name] = table[own_name]

    def _beside(self, step: OperatorStep) -> pa.Table:
        return pa.table({own: self.column(name) for own, name in step.judges_by.items()})

    def _values_digest(self, name: str) -> str:
        own = self.plan.columns[name].name or name
        return self.member.digests.get(own) or values_digest(self.column(name))


def values_digest(column: pa.ChunkedArray) -> str:
    """SHA-256 of the values of a column in a part, hex."""
    values = json.dumps(column.to_pylist(), default=str, ensure_ascii=False)
    return hashlib.sha256(values.encode()).hexdigest()


def judged(values: pa.Table, refusals: Mapping[int, Failure]) -> pa.Table:
    """Values of an operator with the status and the error of the rows that a policy refuses."""
    for name, attribute in ((STATUS, "status"), (ERROR, "error")):
        if name in values.column_names and refusals:
            said = values[name].to_pylist()
            for row, failure in refusals.items():
                said[row] = getattr(failure, attribute)
            place = values.column_names.index(name)
            values = values.set_column(place, values.schema.field(name), pa.array(said, values.schema.field(name).type))
    return values


def read_pictures(store: Store, places: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Stored pictures by (tar, offset, length), each tar opened once."""
    pictures: list[bytes] = [b""] * len(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    descriptor, opened = -1, ""
    try:
        for i in order:
            tar, offset, length = places[i]
            if tar != opened:
                if descriptor >= 0:
                    os.close(descriptor)
                descriptor, opened = _open(store, tar), tar
            pictures[i] = os.pread(descriptor, length, offset)
            if len(pictures[i]) != length:
                raise StoreError(f"{store.path(tar)}: is cut short at byte {offset}; the store is damaged")
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return pictures


def _open(store: Store, tar: str) -> int:
    try:
        return os.open(store.path(tar), os.O_RDONLY)
    except FileNotFoundError:
        raise StoreError(f"{store.path(tar)}: pictures lie in it, and it is not there; the store is damaged") from None
