"""Which rows of a source are forgotten, by key, URL and host: part by part, and nothing is read without tombstones."""

import numpy as np
import pyarrow as pa

from curation.forget.tombstones import Tombstones, hash_of, tombstones_of
from curation.ingest import MEMBER, Member, Snapshot
from curation.stage import Plan
from curation.storage.store import Store
from curation.storage.tables import read_table
from schemas import columns as c


def forgotten_in(store: Store, tombstones: Tombstones, member: Member) -> np.ndarray:
    """Which rows of a part are forgotten, bool_N."""
    if not tombstones:
        return np.zeros(member.part.rows, bool)
    return tombstones.rows(read_table(store, member.part.file, tombstones.source_columns))


def forgotten_keys(store: Store, plan: Plan, snapshot: Snapshot) -> list[str]:
    """The keys of a snapshot's forgotten rows, sorted: they are a part of the plan's name."""
    tombstones = tombstones_of(store, plan.tombstones)
    if not tombstones:
        return []
    rejected = read_table(store, snapshot.rejected)
    found = set(rejected[c.KEY.name].filter(pa.array(forgotten_rejected(tombstones, rejected))).to_pylist())
    for member in snapshot.parts:
        gone_N = forgotten_in(store, tombstones, member)
        if gone_N.any():
            gone_N &= read_table(store, member.file, [MEMBER])[MEMBER].to_numpy()
            keys = read_table(store, member.part.file, [c.KEY.name])[c.KEY.name]
            found.update(keys.filter(pa.array(gone_N)).to_pylist())
    return sorted(found)


def forgotten_rejected(tombstones: Tombstones, rejected: pa.Table) -> np.ndarray:
    """Which of the rows that failed at the source are forgotten, bool_N."""
    if not tombstones or not rejected.num_rows:
        return np.zeros(rejected.num_rows, bool)
    urls = rejected[c.URL.name].to_pylist()
    addresses = pa.array([None if url is None else hash_of(url) for url in urls], pa.string())
    return tombstones.rows(rejected.append_column("address", addresses))


def blanked(table: pa.Table, gone_N: np.ndarray, kept: set[str]) -> pa.Table:
    """The table with NULL in those rows, but in the columns that are kept."""
    if not gone_N.any():
        return table
    places = pa.array(np.arange(table.num_rows), mask=gone_N)
    columns = [table[name] if name in kept else table[name].take(places) for name in table.column_names]
    return pa.table(columns, schema=table.schema)
