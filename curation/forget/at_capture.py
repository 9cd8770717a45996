"""A forgotten row that comes with its picture brings neither picture nor text, only what tells that it is forgotten."""

from typing import Any

import pyarrow as pa

from curation.forget.tombstones import Tombstones, hash_of
from curation.ingest import OURS

_TELLS = ("failure", "picture_sha256", "stored_sha256")


def forgotten_capture(tombstones: Tombstones, ours: dict[str, Any]) -> dict[str, Any] | None:
    """What is kept of a captured row if it is forgotten, else None; the key is made as ingest makes it.

    A row that only its URL tells to be forgotten, or the URL's host, keeps the URL until a purge.
    """
    if not tombstones:
        return None
    url, caption, own_key, picture_sha256, stored_sha256, origin = (
        ours.get(OURS + name) for name in ("url", "caption", "own_key", "picture_sha256", "stored_sha256", "origin")
    )
    named = url or picture_sha256 or f"origin:{origin}"
    key = own_key or hash_of(f"{named}\n{caption or ''}")
    row = {"key": [key], "address": [hash_of(named)], "url": pa.array([url], pa.string())}
    digests = pa.array([picture_sha256, stored_sha256], pa.string())
    is_told_without_url = bool(
        tombstones.matches("key", pa.array([key]))[0] | tombstones.matches("picture", digests).any()
    )
    if not is_told_without_url and not tombstones.rows(pa.table(row))[0]:
        return None
    kept = {OURS + name: ours.get(OURS + name) for name in _TELLS}
    return kept | {f"{OURS}own_key": key, f"{OURS}url": None if is_told_without_url else url}
