"""Ingest: source rows become keys, new keys become parts of the pool, members become a snapshot.

    source ──> staged (key, address, url, caption, columns) ──> minus the pool's keys ──> new parts
                                 │
                                 └──> snapshot: for every part, which rows are members and the source's own columns

Everything runs in DuckDB, out of core. The pool is a chain of records put if absent: who loses the put reads the chain
again and subtracts again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from curation.forget.staged import blank_staged
from curation.forget.tombstones import all_tombstones
from curation.sources.files import readable
from curation.storage import layout, out_of_core
from curation.storage.pool import Part, Pool, extend_pool, read_pool
from curation.storage.store import FileRef, Store, digest
from curation.storage.tables import put_table, read_table, runs_of
from schemas import columns as c
from schemas.errors import SourceError

OURS = "_pairmill_"  # before our names where the source's own columns stand beside them
MEMBER = f"{OURS}member"
REASON = f"{OURS}reason"
_THEIRS = "theirs:"  # before the source's own names inside of ingest
_WIDE_ROWS = 10_000  # at once where rows hold embeddings
REJECTED_COLUMNS = 4  # key, url, caption, reason; then the source's own


@dataclass(frozen=True)
class Staging:
    """What ingest needs of a source: SQL that yields its rows, and what names it.

    `relation` selects url, caption and the source's own columns. Of pictures that were captured it selects, each with
    OURS before its name: url, caption, `picture_sha256` (stands in for a missing URL), `failure` (NULL or why the row
    failed), `origin`, and `own_key` (where rows have a key already).
    """

    identity: dict[str, Any]
    relation: str
    extra: dict[str, pa.DataType]
    captured: bool = False


@dataclass(frozen=True)
class Member:
    """A part that has rows of a snapshot. `file` holds `member` and the source's columns, for every row of the part.

    `digests` holds those of the columns' values as they were before a purge took some out: they are in fingerprints.
    """

    part: Part
    file: FileRef
    members: int
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """One state of a source: its rows in the parts of the pool, and the rows that failed at the source."""

    digest: str
    rows_read: int
    parts: tuple[Member, ...]
    rejected: FileRef  # key, url, caption, reason and the source's columns; sorted by key
    rejected_rows: int
    extra: pa.Schema
    identity: Mapping[str, Any] = field(default_factory=dict)  # of the source: what names the snapshot

    @property
    def keys(self) -> int:
        """Distinct keys of the snapshot, those that failed at the source included."""
        return sum(member.members for member in self.parts) + self.rejected_rows


def find_snapshot(store: Store, identity: dict[str, Any]) -> Snapshot | None:
    """The snapshot of that identity if it was ingested before."""
    name = digest(identity)
    record = store.get(layout.snapshot(name))
    return _from_record(store, name, record) if record else None


def ingest(
    store: Store, staging: Staging, rows_per_part: int, check: Callable[[int], None] = lambda keys: None
) -> Snapshot:
    """Bring a source's rows into the pool and record its snapshot; `check` sees the number of keys before that."""
    found = find_snapshot(store, staging.identity)
    if found:
        return found
    with out_of_core.database(store) as database:
        rows_read = _stage(database, staging)
        if not rows_read:
            raise SourceError("source: has no rows; a set of nothing would become its newest version")
        ((keys,),) = database.sql("SELECT (SELECT count(*) FROM staged) + (SELECT count(*) FROM rejected)").fetchall()
        check(keys)
        blank_staged(database, all_tombstones(store), [_quoted(_THEIRS + name) for name in staging.extra])
        while not _add_new_parts(store, database, rows_per_part):
            pass
        record = _snapshot_record(store, database, staging, rows_read)
    name = digest(staging.identity)
    store.put(layout.snapshot(name), record)
    return _from_record(store, name, store.get(layout.snapshot(name)))


def _stage(database: duckdb.DuckDBPyConnection, staging: Staging) -> int:
    """Make `staged` (one row per key) and `rejected`; return how many rows were read."""
    extra = "".join(f", {_quoted(name)} AS {_quoted(_THEIRS + name)}" for name in staging.extra)
    known = (
        ("url", "caption", "picture_sha256", "failure", "own_key", "origin") if staging.captured else ("url", "caption")
    )
    ours = [f"{OURS if staging.captured else ''}{name} AS {name}" for name in known]
    ours += [
        f"NULL::VARCHAR AS {name}" for name in ("picture_sha256", "failure", "own_key", "origin") if name not in known
    ]
    with readable("source"):
        database.execute(
            f"""
            CREATE TABLE staged AS
            WITH source AS (SELECT {", ".join(ours)}{extra} FROM ({staging.relation})),
            named AS (SELECT * REPLACE (nullif(url, '') AS url, coalesce(caption, '') AS caption),
                             coalesce(nullif(url, ''), picture_sha256, 'origin:' || origin) AS named FROM source)
            SELECT coalesce(own_key, substr(sha256(coalesce(named, '') || chr(10) || caption), 1, 32)) AS key,
                   -- rows without any address must not all fall into one part: each is its own
                   substr(sha256(coalesce(named, chr(10) || caption)), 1, 32) AS address,
                   coalesce(failure, CASE WHEN contains(url, chr(10)) THEN 'the URL holds a newline' END) AS reason, *
            FROM named
            """
        )
    ((rows_read,),) = database.sql("SELECT count(*) FROM staged").fetchall()
    spelled = ", ".join(f"{_text(name)}: {_spelled(name, staging.extra[name])}" for name in sorted(staging.extra))
    spelling = f"to_json({{{spelled}}})" if spelled else "''"
    database.execute("CREATE TABLE repeated AS SELECT key FROM staged GROUP BY key HAVING count(*) > 1")
    # Rows with equal keys count once. A sound row goes before one that failed; then the smallest spelling.
    # The others are deleted in place: a copy of the table would be a second copy of all embeddings.
    database.execute(
        f"""
        DELETE FROM staged WHERE rowid IN (
            SELECT rowid FROM staged SEMI JOIN repeated USING (key)
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY reason IS NOT NULL, {spelling}::VARCHAR,
                                       coalesce(picture_sha256, ''), coalesce(url, ''), coalesce(reason, '')) > 1)
        """
    )
    database.execute("CREATE TABLE rejected AS SELECT * FROM staged WHERE reason IS NOT NULL")
    database.execute("DELETE FROM staged WHERE reason IS NOT NULL")
    return int(rows_read)


def _add_new_parts(store: Store, database: duckdb.DuckDBPyConnection, rows_per_part: int) -> bool:
    """Cut the keys that the pool lacks into parts, and put them; False when another run was first."""
    pool = read_pool(store)
    load_parts(store, database, pool.parts)
    # Cut by the rank of a URL's first row, so that no URL is cut.
    database.execute(
        f"""
        CREATE OR REPLACE TABLE fresh AS
        SELECT CAST(min(rank) OVER (PARTITION BY address) // {rows_per_part} AS INTEGER) AS slot, * FROM (
            SELECT row_number() OVER (ORDER BY address, key) - 1 AS rank, key, url, caption, address
            FROM staged ANTI JOIN pool USING (key))
        """
    )
    if not database.sql("SELECT 1 FROM fresh LIMIT 1").fetchall():
        return True
    reader = database.sql("SELECT slot, key, url, caption, address FROM fresh ORDER BY rank").to_arrow_reader(50_000)
    schema = pa.schema([c.KEY.field, c.URL.field, c.CAPTION.field, pa.field("address", pa.string())])
    parts = []
    for number, (_, table) in enumerate(runs_of(reader, "slot")):
        ref = put_table(store, table.cast(schema))
        parts.append(Part(f"{pool.next_record:05d}-{number:06d}", table.num_rows, ref))
    return extend_pool(store, pool, parts, _shared_addresses(store, database, pool))


def _shared_addresses(store: Store, database: duckdb.DuckDBPyConnection, pool: Pool) -> list[FileRef]:
    """The new rows whose URL an earlier part has: they adopt its bytes, and it may adopt theirs."""
    query = f"""
        SELECT part, CAST(row AS INTEGER) AS row, home_part, CAST(home_row AS INTEGER) AS home_row FROM (
            SELECT '{pool.next_record:05d}-' || lpad(number::VARCHAR, 6, '0') AS part, row, address FROM (
                SELECT dense_rank() OVER (ORDER BY slot) - 1 AS number, address, url,
                       row_number() OVER (PARTITION BY slot ORDER BY rank) - 1 AS row
                FROM fresh) WHERE url IS NOT NULL) AS mine
        JOIN (SELECT address, min(part) AS home_part, arg_min(row, (part, row)) AS home_row FROM pool GROUP BY address)
        USING (address) ORDER BY part, row
    """
    table = database.sql(query).to_arrow_table()
    return [put_table(store, table)] if table.num_rows else []


def load_parts(store: Store, database: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> None:
    """Make the table `pool` (part, row, key, address) over the part files."""
    if not parts:
        database.execute("CREATE OR REPLACE TABLE pool (part VARCHAR, row BIGINT, key VARCHAR, address VARCHAR)")
        return
    names = pa.table(
        {
            "part": [part.name for part in parts],
            "filename": [str(store.path(part.file.name)) for part in parts],
        }
    )
    database.register("part_names", names)
    database.execute(
        """
        CREATE OR REPLACE TABLE pool AS
        SELECT part, file_row_number AS row, key, address
        FROM read_parquet($files, filename = true, file_row_number = true) JOIN part_names USING (filename)
        """,
        {"files": names["filename"].to_pylist()},
    )


def _snapshot_record(
    store: Store, database: duckdb.DuckDBPyConnection, staging: Staging, rows_read: int
) -> dict[str, Any]:
    pool = read_pool(store)
    load_parts(store, database, pool.parts)
    extra = "".join(f", staged.{_quoted(_THEIRS + name)}" for name in staging.extra)
    numbers = pa.table({"part": [p.name for p in pool.parts], "slot": pa.array(range(len(pool.parts)), pa.int32())})
    database.register("numbers", numbers)
    reader = database.sql(
        f"""
        SELECT slot, staged.key IS NOT NULL AS {MEMBER}{extra}
        FROM pool JOIN numbers USING (part) LEFT JOIN staged USING (key)
        WHERE part IN (SELECT part FROM pool SEMI JOIN staged USING (key))
        ORDER BY slot, row
        """
    ).to_arrow_reader(_WIDE_ROWS)
    schema = pa.schema([pa.field(MEMBER, pa.bool_()), *(pa.field(n, t) for n, t in staging.extra.items())])
    members = []
    for slot, table in runs_of(reader, "slot"):
        ref = put_table(store, table.rename_columns(schema.names).cast(schema))
        count = table[MEMBER].to_numpy().sum()
        members.append({"part": asdict(pool.parts[slot]), "file": ref.record(), "members": int(count)})
    rejected = database.sql(
        f"SELECT key, url, caption, reason{extra.replace('staged.', '')} FROM rejected ORDER BY key"
    ).to_arrow_table()
    fixed = [c.KEY.field, c.URL.field, c.CAPTION.field, pa.field(REASON, pa.string())]
    wanted = pa.schema([*fixed, *(pa.field(n, t) for n, t in staging.extra.items())])
    rejected = rejected.rename_columns(wanted.names).cast(wanted)
    return {
        "identity": staging.identity,
        "rows_read": rows_read,
        "parts": members,
        "rejected": put_table(store, rejected).record(),
        "rejected_rows": rejected.num_rows,
    }


def _from_record(store: Store, name: str, record: dict[str, Any]) -> Snapshot:
    rejected = FileRef(**record["rejected"])
    parts = [
        Member(
            Part(m["part"]["name"], m["part"]["rows"], FileRef(**m["part"]["file"])),
            FileRef(**m["file"]),
            m["members"],
            m.get("digests", {}),
        )
        for m in record["parts"]
    ]
    extra = pa.schema(list(read_table(store, rejected).schema)[REJECTED_COLUMNS:])
    return Snapshot(
        name, record["rows_read"], tuple(parts), rejected, record["rejected_rows"], extra, record["identity"]
    )


def _spelled(name: str, kind: pa.DataType) -> str:
    """SQL of a source's column as canonical JSON has it: embeddings by their digest."""
    column = _quoted(_THEIRS + name)
    return f"sha256({column})" if pa.types.is_fixed_size_binary(kind) else column


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
