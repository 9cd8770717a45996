"""From the answer for a URL to the outcome of every row that wants it: digests, the stored picture, a ledger line.

`Arrived` is what is known before the picture is decoded, `completed` makes the outcomes of both.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.fetch.block_lists import BlockLists
from curation.fetch.ledger import ledger_line
from curation.fetch.once_per_url import Wanted
from curation.fetch.outcomes import BLOCKED_HASH, OK, Fetched
from curation.fetch.pictures.to_stored import Stored
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


class Arrived:
    """What was fetched for the rows that want it, before it is decoded."""

    def __init__(self, wanted: list[Wanted], fetched: Fetched, block_lists: BlockLists) -> None:
        self.wanted = wanted
        self.fetched = fetched
        self.block_lists = block_lists
        self.sha256 = "" if fetched.body is None else hashlib.sha256(fetched.body).hexdigest()
        self.mismatches = [None if fetched.body is None else _mismatch(one, self.sha256) for one in wanted]

    @property
    def to_decode(self) -> bytes | None:
        """The bytes to make a picture of; None where there are none, blocked ones, or others than all rows expect."""
        return self.fetched.body if None in self.mismatches and self.sha256 not in self.block_lists.sha256 else None


def completed(arrived: Arrived, picture: Stored | DecodeError | None) -> Iterator[Completed]:
    """The outcome of every row of one URL; the ledger has one line for them. `picture` is what `to_decode` became."""
    fetched = arrived.fetched
    values: dict[str, Any] = {HTTP_STATUS.name: fetched.http_status}
    if arrived.sha256:
        values[SHA256.name] = arrived.sha256
    outcome, stored = _outcome(arrived, picture), None
    if outcome is None and isinstance(picture, Stored):
        stored = picture.bytes
        values[STORED_SHA256.name] = hashlib.sha256(stored).hexdigest()
        values[ORIGINAL_WIDTH_PX.name] = picture.original_width_px
        values[ORIGINAL_HEIGHT_PX.name] = picture.original_height_px
    for place, (one, mismatch) in enumerate(zip(arrived.wanted, arrived.mismatches, strict=True)):
        failure = mismatch or outcome
        status = failure.status if failure else OK
        ledger = ledger_line(one.key, one.url, fetched, status) if place == 0 and fetched.at else None
        yield Completed(one.row, values, failure, None if failure else stored, ledger)


def _outcome(arrived: Arrived, picture: Stored | DecodeError | None) -> Failure | None:
    """Why there is no picture, or none that may be kept; None where there is one."""
    if arrived.fetched.body is None:
        return Failure(arrived.fetched.status, arrived.fetched.error)
    if arrived.sha256 in arrived.block_lists.sha256:
        return _BLOCKED
    if isinstance(picture, DecodeError):
        return Failure(picture.status, str(picture))
    return _BLOCKED if picture is not None and arrived.block_lists.picture(picture.bytes) else None


def _mismatch(wanted: Wanted, sha256: str) -> Failure | None:
    if wanted.expected_sha256 in ("", sha256):
        return None
    message = f"the fetched bytes have the SHA-256 {sha256}, the source expects {wanted.expected_sha256}"
    return Failure(SHA256_MISMATCH, message)
