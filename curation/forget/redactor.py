"""Copies of files without the rows that are forgotten, each made once; what has none of them is left alone.

Rows of the pool keep their place, because sidecars join by position: their values become NULL. Rows of shards, lines of
ledgers and members of tars go.

Files are named by their content, so two parts may share one whose rows are known by position only; of that, each part
has a copy of its own.
"""

import tarfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.forget.at_source import blanked
from curation.forget.pool_rows import captured_rows
from curation.forget.tar_members import members
from curation.forget.tombstones import FORGET, HASH_CHARS, REASON, Tombstones
from curation.ingest import MEMBER, OURS
from curation.ingest import REASON as WHY_REJECTED
from curation.part_rows import values_digest
from curation.storage.sidecars import COMPUTED
from curation.storage.store import FileRef, Store
from curation.storage.tables import parquet_writer, read_table
from schemas.columns import FATE, FATE_REASON, FATE_STEP, KEY, URL
from schemas.shard import PoolTarWriter, ShardWriter, read_shard

Change = Callable[[pa.Table, slice], pa.Table]  # of rows [start, stop) of a file


class Redactor:
    """Redacts files of one store; `copies` has, by part ("": of any), old name → copy of what was touched."""

    def __init__(self, store: Store, tombstones: Tombstones) -> None:
        self._store = store
        self._tombstones = tombstones
        self._seen: set[tuple[str, str]] = set()
        self._moved: dict[str, dict[int, int]] = {}  # tar → offset → offset in its copy
        self.copies: dict[str, dict[str, FileRef]] = {}
        self.digests: dict[str, dict[str, str]] = {}  # by file of a snapshot's members: column → digest

    def copy_of(self, ref: FileRef, part: str = "") -> FileRef:
        """The copy of a file, or the file itself where nothing of it is forgotten."""
        return self.copies.get(part, {}).get(ref.name, ref)

    def part(self, ref: FileRef) -> np.ndarray:
        """URL and caption of a part's rows go; returns which rows are forgotten, bool_N."""
        gone_N = self._by_key(ref)
        self._blank(ref, gone_N, {KEY.name, "address"})
        return gone_N

    def members(self, ref: FileRef, gone_N: np.ndarray, part: str) -> None:
        """The source's own columns go; digests of their values stay, because they are in fingerprints."""
        self._blank(ref, gone_N, {MEMBER}, part)
        if self.copy_of(ref, part) != ref:
            table = read_table(self._store, ref)
            self.digests[ref.name] = {name: values_digest(table[name]) for name in table.column_names if name != MEMBER}

    def rejected(self, ref: FileRef) -> None:
        """What the source said of rows that failed there goes."""
        self._blank(ref, self._by_key(ref), {KEY.name, WHY_REJECTED})

    def values(self, ref: FileRef, gone_N: np.ndarray, part: str) -> None:
        """All signals of the rows go."""
        self._blank(ref, gone_N, {COMPUTED}, part)

    def samples(self, ref: FileRef, path: Path | None = None) -> None:
        """Of a row in the wide table its key stays, and that it was forgotten."""
        gone_N = self._by_key(ref, path)
        if gone_N.any():
            self._rewrite(ref, lambda table, here: _as_forgotten(table, gone_N[here]), path=path)

    def fates(self, ref: FileRef, gone_N: np.ndarray) -> None:
        """What a decision noted of the rows goes, which may quote them; that it dropped them stays."""
        notes = read_table(self._store, ref).drop_columns(["code"]).filter(pa.array(gone_N))
        if any(column.null_count < len(column) for column in notes.columns):
            self._blank(ref, gone_N, {"code"})

    def shard(self, ref: FileRef, path: Path | None = None) -> int:
        """Rows leave a shard's Parquet; returns how many."""
        gone_N = self._by_key(ref, path)
        if gone_N.any():
            self._rewrite(ref, lambda table, here: _without(table, gone_N[here]), path=path)
        return int(gone_N.sum())

    def shard_tar(self, ref: FileRef, path: Path | None = None) -> None:
        """Samples leave a shard's tar."""
        if self._is_new(ref):
            with self._store.new_file(".tar") as file, open(file.path, "wb") as stream, ShardWriter(stream) as writer:
                for sample in read_shard(path or self._store.path(ref.name)):
                    if not self._tombstones.matches("key", pa.array([sample.key]))[0]:
                        writer.add(sample.key, sample.members)
            self._note(ref, file.ref)

    def ledger(self, ref: FileRef) -> None:
        """The lines of forgotten URLs go."""
        table = pq.read_table(self._store.path(ref.name), columns=[KEY.name, URL.name])
        gone_N = self._tombstones.matches("key", table[KEY.name])
        with duckdb.connect(":memory:") as connection:
            connection.register("ledger", table)
            hashes = connection.sql(f"SELECT substr(sha256(url), 1, {HASH_CHARS}) AS hash FROM ledger").to_arrow_table()
        gone_N |= self._tombstones.matches("url", hashes["hash"])
        if gone_N.any():
            self._rewrite(ref, lambda table, here: _without(table, gone_N[here]))

    def sites(self, ref: FileRef) -> None:
        """What forgotten hosts said about robots goes."""
        gone_N = self._tombstones.of_hosts(read_table(self._store, ref, ["site"])["site"])
        if gone_N.any():
            self._rewrite(ref, lambda table, here: _without(table, gone_N[here]))

    def tars_of(self, ref: FileRef, gone_N: np.ndarray) -> set[str]:
        """In which tars pictures of forgotten rows lie, by a table of locations."""
        places = pq.read_table(self._store.path(ref.name), columns=["row", "tar"])
        return set(places["tar"].filter(pa.array(gone_N[places["row"].to_numpy()])).to_pylist())

    def captured_tars(self, ref: FileRef) -> set[str]:
        """The same by what a capture noted."""
        gone_N, _ = self._captured(ref)
        tars = pq.read_table(self._store.path(ref.name), columns=[f"{OURS}tar"])[f"{OURS}tar"]
        return set(tars.filter(pa.array(gone_N)).drop_null().to_pylist())

    def captured(self, ref: FileRef) -> None:
        """What a source's file said of a row goes, and its picture's place; the row keeps its key.

        Tars come first: the places of other pictures follow them.
        """
        gone_N, keys = self._captured(ref)
        tars = pq.read_table(self._store.path(ref.name), columns=[f"{OURS}tar"])[f"{OURS}tar"].unique().to_pylist()
        if not gone_N.any() and not self._moved.keys() & set(tars):
            return
        tar, offset = f"{OURS}tar", f"{OURS}offset"
        kept = {f"{OURS}own_key", f"{OURS}failure"}

        def change(table: pa.Table, here: slice) -> pa.Table:
            own = pc.if_else(pa.array(gone_N[here]), keys.slice(here.start, table.num_rows), table[f"{OURS}own_key"])
            return self._relocated(_with(blanked(table, gone_N[here], kept), f"{OURS}own_key", own), tar, offset)

        self._rewrite(ref, change)

    def locations(self, ref: FileRef, gone_N: np.ndarray, part: str) -> None:
        """The places of the rows' pictures go, and those of others follow their tars."""
        rows = pq.read_table(self._store.path(ref.name), columns=["row"])["row"].to_numpy()
        gone_L = gone_N[rows]
        self._rewrite(ref, lambda table, here: self._relocated(_without(table, gone_L[here]), "tar", "offset"), part)

    def pool_tar(self, ref: FileRef) -> None:
        """Pictures of forgotten URLs, and any with the same bytes, leave a tar of the pool."""
        if not self._is_new(ref):
            return
        path, moved = self._store.path(ref.name), self._moved.setdefault(ref.name, {})
        with (
            tarfile.open(path, "r:") as old,
            self._store.new_file(".tar") as file,
            open(file.path, "wb") as stream,
            PoolTarWriter(stream) as writer,
        ):
            for member, gone in zip(*members(self._tombstones, path), strict=True):
                if not gone:
                    data = old.extractfile(member).read()  # type: ignore[union-attr]
                    moved[member.offset_data] = writer.add(member.name, data)
        self._note(ref, file.ref)

    def _captured(self, ref: FileRef) -> tuple[np.ndarray, pa.Array]:
        """Which rows of a capture are forgotten, bool_N, and the keys of all."""
        keys = captured_rows(self._store, ref)["key"].combine_chunks()
        return self._tombstones.matches("key", keys), keys

    def _relocated(self, table: pa.Table, tar: str, offset: str) -> pa.Table:
        """The table with the places of pictures in the copies of their tars."""
        places = list(zip(table[tar].to_pylist(), table[offset].to_pylist(), strict=True))
        if not any(name in self._moved for name, _ in places):
            return table
        names = [self._copied_tar(name) for name, _ in places]
        offsets = [self._moved[name][at] if name in self._moved else at for name, at in places]
        table = _with(table, tar, pa.array(names, pa.string()))
        return _with(table, offset, pa.array(offsets, pa.int64()))

    def _copied_tar(self, name: str | None) -> str | None:
        copy = self.copies.get("", {}).get(name or "")
        return copy.name if copy else name

    def _by_key(self, ref: FileRef, path: Path | None = None) -> np.ndarray:
        keys = pq.read_table(path or self._store.path(ref.name), columns=[KEY.name])[KEY.name]
        return self._tombstones.matches("key", keys)

    def _blank(self, ref: FileRef, gone_N: np.ndarray, kept: set[str], part: str = "") -> None:
        if gone_N.any():
            self._rewrite(ref, lambda table, here: blanked(table, gone_N[here], kept), part)

    def _rewrite(self, ref: FileRef, change: Change, part: str = "", path: Path | None = None) -> None:
        """Write a changed copy, row group by row group."""
        if not self._is_new(ref, part):
            return
        start = 0
        with (
            pq.ParquetFile(path or self._store.path(ref.name)) as old,
            self._store.new_file(".parquet") as file,
            parquet_writer(file.path, old.schema_arrow) as writer,
        ):
            for number in range(old.num_row_groups):
                table = old.read_row_group(number, use_threads=False)
                changed = change(table, slice(start, start + table.num_rows))
                writer.write_table(changed.combine_chunks(), row_group_size=max(1, table.num_rows))
                start += table.num_rows
        self._note(ref, file.ref, part)

    def _note(self, old: FileRef, new: FileRef, part: str = "") -> None:
        """Remember a copy; what came out as it was is none."""
        if new.sha256 != old.sha256:
            self.copies.setdefault(part, {})[old.name] = new

    def _is_new(self, ref: FileRef, part: str = "") -> bool:
        seen = (part, ref.name) in self._seen
        self._seen.add((part, ref.name))
        return not seen


def _without(table: pa.Table, gone_N: np.ndarray) -> pa.Table:
    return table.filter(pa.array(~gone_N))


def _as_forgotten(table: pa.Table, gone_N: np.ndarray) -> pa.Table:
    """The wide table as `samples` writes it of forgotten rows: those that failed at the source have failed there."""
    table = blanked(table, gone_N, {KEY.name, FATE.name, FATE_STEP.name, FATE_REASON.name})
    dropped = pc.and_(pa.array(gone_N), pc.not_equal(table[FATE_STEP.name], "source"))
    for name, text in ((FATE.name, "dropped"), (FATE_STEP.name, FORGET), (FATE_REASON.name, REASON)):
        table = _with(table, name, pc.if_else(dropped, text, table[name]))
    return table


def _with(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values in a column."""
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), values)
