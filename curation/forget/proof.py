"""Whether anything of a forgotten row is left in a store: every member of every tar, every row of every Parquet file.

A file that nothing lists, left by a killed process, goes as soon as something forgotten is found in it; and as in
`prune` in any case when it is so old that nobody is about to list it, because signals do not tell whose they are.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.forget.purge_plan import BLOB
from curation.forget.tar_members import members
from curation.forget.tombstones import HASH_CHARS, Tombstones
from curation.ingest import OURS
from curation.prune import GRACE_S
from curation.storage import layout
from curation.storage.store import Store

# What may stand beside the key of a forgotten row: hashes, and that and why it did not come through.
_ALLOWED = {"key", "address", "fate", "fate_step", "fate_reason", "_pairmill_reason"}
_ADDRESSES = {"url", f"{OURS}url"}  # where a row's own URL stands


@dataclass
class Proof:
    """What was looked at, and what is left."""

    tars: int = 0
    members: int = 0
    parquets: int = 0
    left: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The proof in one line, or what is left."""
        if self.left:
            return "\n".join(["something forgotten is left:", *(f"  {said}" for said in self.left)])
        looked_at = f"{self.members:,} members of {self.tars:,} tars, {self.parquets:,} Parquet files"
        return f"{looked_at}: none forgotten"


def prove(store: Store, tombstones: Tombstones, keys: pa.Array, urls: pa.Array) -> Proof:
    """Look through every tar and every Parquet file of a store; `keys` and `urls` are the hashes of tombstones."""
    proof, unlisted = Proof(), _unlisted(store)
    oldest_kept = time.time() - GRACE_S
    for path in map(store.path, sorted(unlisted)):
        if path.stat().st_mtime < oldest_kept:
            path.unlink()
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("gone_keys", pa.table({"hash": keys}))
        connection.register("gone_urls", pa.table({"hash": urls}))
        for path in _each_once(store):
            is_tar = path.suffix == ".tar"
            left, quoting = _tar(path, tombstones, proof) if is_tar else _parquet(path, connection, proof)
            if not left and not quoting:
                continue
            if str(path.relative_to(store.root)) in unlisted:
                path.unlink()
            elif left:
                proof.left.append(f"{path}: {left:,} {'members' if is_tar else 'rows'} are forgotten")
    return proof


def _each_once(store: Store) -> Iterator[Path]:
    """Every file with data, those of versions where they are no hard link to one that was seen."""
    seen: set[tuple[int, int]] = set()
    for path in sorted([*store.path("blobs").glob("*/*"), *store.path("curated").glob("*/*/*")]):
        state = path.stat()
        if path.suffix in (".tar", ".parquet") and (state.st_dev, state.st_ino) not in seen:
            seen.add((state.st_dev, state.st_ino))
            yield path


def _tar(path: Path, tombstones: Tombstones, proof: Proof) -> tuple[int, int]:
    found, gone_N = members(tombstones, path)
    proof.tars += 1
    proof.members += len(found)
    return int(gone_N.sum()), 0


def _parquet(path: Path, connection: duckdb.DuckDBPyConnection, proof: Proof) -> tuple[int, int]:
    """How many rows are forgotten, and how many have a forgotten URL as any text, which another's caption may be."""
    proof.parquets += 1
    of_file = {"file": str(path)}
    columns = connection.execute("SELECT name, type FROM (DESCRIBE FROM read_parquet($file)) AS t(name, type)", of_file)
    kinds = dict(columns.fetchall())
    texts = {
        name: f"substr(sha256({_quoted(name)}), 1, {HASH_CHARS}) IN (FROM gone_urls)"
        for name, kind in kinds.items()
        if kind == "VARCHAR"
    }
    own = [said for name, said in texts.items() if name in _ADDRESSES]
    others = [f"{_quoted(name)} IS NOT NULL" for name in kinds if name not in _ALLOWED]
    if "key" in kinds and others:
        own.append(f"(key IN (FROM gone_keys) AND ({' OR '.join(others)}))")
    counts = ", ".join(f"count_if({' OR '.join(said) or 'false'})" for said in (own, list(texts.values())))
    left, quoting = connection.execute(f"SELECT {counts} FROM read_parquet($file)", of_file).fetchall()[0]
    return left, quoting


def _unlisted(store: Store) -> set[str]:
    """Files with data that no record lists."""
    records = (path for folder in layout.REFERRING for path in store.path(folder).rglob("*.json"))
    listed = {name for path in records for name in BLOB.findall(path.read_text(encoding="utf-8"))}
    linked = {path.stat().st_ino for path in store.path("curated").glob("*/*/*")}
    there = (path for path in store.path("blobs").glob("*/*") if path.stat().st_ino not in linked)
    return {name for path in there if (name := str(path.relative_to(store.root))) not in listed}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
