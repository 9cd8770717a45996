"""`pairmill forget`: record what must be forgotten, tell what it stands in, and purge it where that is asked for.

From here on the rows end as `dropped` at `forget` in every selection: at the source by key, URL and host, and after a
download by the picture. Their bytes and signals stay in the store until a purge (see purge.py).
"""

import getpass
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.forget.affected import AffectedVersion, affected, shard_path
from curation.forget.asked import Asked, few
from curation.forget.pool_rows import Hit, hashes_of, hits
from curation.forget.tombstones import KINDS, TABLE, Request, all_tombstones, put_request, tombstone_table
from curation.storage import layout
from curation.storage.store import Store
from curation.storage.tables import put_table
from schemas.errors import InputError, RunError

_SHOWN_KEYS = 5


@dataclass(frozen=True)
class Forgotten:
    """What was asked, and what it stands in; `request` is None where nothing new was recorded."""

    dry_run: bool
    rows: int  # of the store, all addresses and captions of the same pictures included
    tombstones: Mapping[str, int]  # new ones by kind
    request: Request | None
    versions: tuple[AffectedVersion, ...]
    unknown: int = 0  # URLs that the store has not met so far
    purged: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The outcome for people."""
        would = "would be" if self.dry_run else "are"
        lines = [f"{self.rows:,} rows {would} forgotten"]
        if self.unknown:
            lines.append(f"{self.unknown:,} of the URLs are not in the store so far; they stay out if they come")
        for version in self.versions:
            lines += _version_text(version)
        lines.append(self._end())
        if self.purged:
            of = f"in {len(self.purged['versions']):,} versions and the pool"
            lines += [f"Purged: {self.purged['files']:,} files were replaced, {of}", self.purged["proof"]]
        return "\n".join(lines)

    def _end(self) -> str:
        new = ", ".join(f"{count:,} of {kind}s" for kind, count in self.tombstones.items() if count)
        if self.dry_run:
            return f"Nothing was written; without --dry-run: new tombstones: {new or 'none'}."
        return f"Recorded: {self.request.text()} ({new})" if self.request else "Every tombstone was there already."


def _version_text(version: AffectedVersion) -> list[str]:
    tags = f" ({', '.join(version.tags)})" if version.tags else ""
    lines = [f"  {version.name}@{version.version}{tags}: {version.rows:,} rows, {version.curated:,} of them curated"]
    lines += [f"    {shard_path(version, shard)}: {shard.rows:,} rows" for shard in version.shards]
    lines += [f"    used by {user}" for user in version.used_by]
    if version.returning:
        more = f" and {len(version.returning) - _SHOWN_KEYS:,} more" if len(version.returning) > _SHOWN_KEYS else ""
        shown = ", ".join(version.returning[:_SHOWN_KEYS]) + more
        lines.append(f"    near-duplicates that come back unless another row stands for them: {shown}")
    return lines


def forget(
    store_path: Path | str,
    asked: Asked | None,
    *,
    why: str = "",
    who: str | None = None,
    dry_run: bool = False,
    purge: bool = False,
) -> Forgotten:
    """Record tombstones for what is asked, or only tell what that would be; None stands for all that there are.

    Raises InputError for what cannot be read or is not there, StoreError while a run is under way, RunError where
    something is left after a purge.
    """
    store = Store.existing(store_path)
    if dry_run:
        return _forget(store, asked, None)
    said = {"who": who or _user(), "when": time.time(), "why": why}
    with store.lock(exclusive=True):
        outcome = _forget(store, asked, said)
        return replace(outcome, purged=_purge(store, said)) if purge else outcome


def _forget(store: Store, asked: Asked | None, said: dict[str, Any] | None) -> Forgotten:
    first = tombstone_table(store) if asked is None else asked.tombstones(store)
    if not first.num_rows:
        raise InputError(f"forget: nothing is forgotten in the store {store.root} so far; say what: --keys, --urls …")
    found = hits(store, first)
    missing = _not_met(store, asked, first, found)
    new = _without_known(store, found.tombstones)
    request = _put(store, new, said) if said is not None else None
    counts = {kind: len(hashes_of(new, kind)) for kind in KINDS}
    versions = tuple(affected(store, found.keys))
    return Forgotten(said is None, len(found.keys), counts, request, versions, missing)


def _purge(store: Store, said: dict[str, Any]) -> dict[str, Any]:
    """Purge, and prove it."""
    from curation.forget.proof import prove
    from curation.forget.purge import finish_purge, purge
    from curation.verify import verify

    before = finish_purge(store)
    # What a picture or a host showed is lost with it: from now on the rows are known by their keys.
    _put(store, _without_known(store, hits(store, tombstone_table(store)).tombstones), said)
    tombstones, table = all_tombstones(store), tombstone_table(store)
    done = purge(store, tombstones)
    proof = prove(store, tombstones, hashes_of(table, "key"), hashes_of(table, "url"))
    wrong = [proof.text()] if proof.left else []
    versions = dict.fromkeys((one.name, one.version) for one in (*before.versions, *done.versions))
    for name, version in versions:
        wrong += verify(store.path(layout.curated(name, f"{version}.json"))).errors
    if wrong:
        raise RunError(
            "forget: the purge is not clean; run it again, and report this if it stays so:\n" + "\n".join(wrong)
        )
    labels = [f"{name}@{version}" for name, version in versions]
    return {"files": len(before.old) + len(done.old), "versions": labels, **asdict(proof), "proof": proof.text()}


def _put(store: Store, new: pa.Table, said: dict[str, Any]) -> Request | None:
    return put_request(store, new, put_table(store, new), said) if new.num_rows else None


def _not_met(store: Store, asked: Asked | None, first: pa.Table, found: Hit) -> int:
    """How many of the URLs are in no pool. Raises InputError for keys that are in none."""
    kind = {"keys": "key", "urls": "url"}.get(asked.selector) if asked is not None else None
    if asked is None or kind is None:
        return 0
    missing = sorted(set(hashes_of(first, kind).to_pylist()) - set(hashes_of(found.own, kind).to_pylist()))
    if missing and kind == "key":
        raise InputError(
            f"forget: --keys {asked.value}: the store {store.root} has no such keys: {few(missing)}; "
            'keys are in samples: pairmill sql "SELECT key, url FROM samples LIMIT 10"'
        )
    return len(missing)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return f"user {os.getuid()}"


def _without_known(store: Store, tombstones: pa.Table) -> pa.Table:
    """The tombstones that no request has recorded."""
    known = all_tombstones(store)
    new = [TABLE.empty_table()]
    for kind in KINDS:
        own = tombstones.filter(pc.equal(tombstones["kind"], kind))
        new.append(own.filter(pa.array(~known.matches(kind, own["hash"]))))
    return pa.concat_tables(new)
