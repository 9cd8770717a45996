"""From the answer for a URL to the outcome of every row that wants it: digests, the stored picture, a ledger line."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from curation.fetch.block_lists import BlockLists
from curation.fetch.ledger import ledger_line
from curation.fetch.once_per_url import Wanted
from curation.fetch.outcomes import BLOCKED_HASH, OK, Fetched
from curation.fetch.to_stored import Stored
from curation.operator import Failure
from schemas.columns import HTTP_STATUS, ORIGINAL_HEIGHT_PX, ORIGINAL_WIDTH_PX, SHA256, STORED_SHA256
from schemas.pixels import DecodeError

SHA256_MISMATCH = "sha256_mismatch"
_BLOCKED = Failure(BLOCKED_HASH, "the picture is on the list of blocked hashes")


@dataclass(frozen=True)
class Completed:
    """A row with its outcome."""

    row: int
    values: dict[str, Any]
    failure: Failure | None = None
    stored: bytes | None = None
    ledger: dict[str, Any] | None = None


def completed(
    wanted: list[Wanted], fetched: Fetched, to_picture: Callable[[bytes], Stored], block_lists: BlockLists
) -> Iterator[Completed]:
    """The outcome of every row of one URL; the ledger has one line for them."""
    values: dict[str, Any] = {HTTP_STATUS.name: fetched.http_status}
    outcome, picture = Failure(fetched.status, fetched.error) if fetched.body is None else None, None
    mismatches: list[Failure | None] = [None] * len(wanted)
    if fetched.body is not None:
        values[SHA256.name] = hashlib.sha256(fetched.body).hexdigest()
        mismatches = [_mismatch(one, values[SHA256.name]) for one in wanted]
        if None in mismatches:  # other bytes than expected are not even decoded
            outcome, picture = _picture(fetched.body, to_picture, values, block_lists)
    for place, (one, mismatch) in enumerate(zip(wanted, mismatches, strict=True)):
        failure = mismatch or outcome
        status = failure.status if failure else OK
        ledger = ledger_line(one.key, one.url, fetched, status) if place == 0 and fetched.at else None
        yield Completed(one.row, values, failure, None if failure else picture, ledger)


def _picture(
    body: bytes, to_picture: Callable[[bytes], Stored], values: dict[str, Any], block_lists: BlockLists
) -> tuple[Failure | None, bytes | None]:
    """The stored picture of fetched bytes, its columns put into `values`; or why there is none."""
    if values[SHA256.name] in block_lists.sha256:
        return _BLOCKED, None
    try:
        stored = to_picture(body)
    except DecodeError as error:
        return Failure(error.status, str(error)), None
    if block_lists.picture(stored.bytes):
        return _BLOCKED, None
    values[STORED_SHA256.name] = hashlib.sha256(stored.bytes).hexdigest()
    values[ORIGINAL_WIDTH_PX.name] = stored.original_width_px
    values[ORIGINAL_HEIGHT_PX.name] = stored.original_height_px
    return None, stored.bytes


def _mismatch(wanted: Wanted, sha256: str) -> Failure | None:
    if wanted.expected_sha256 in ("", sha256):
        return None
    message = f"the fetched bytes have the SHA-256 {sha256}, the source expects {wanted.expected_sha256}"
    return Failure(SHA256_MISMATCH, message)
