"""From the answer for a URL to the outcome of every row that wants it: digests, the stored picture, a ledger line.

`Arrived` is what is known before the picture is decoded, `completed` makes the outcomes of both.
"""

import hashlib
from collections.abc import Iterator, Sequence
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

_BLOCKED = Failure(BLOCKED_HASH, "the picture is on the list of blocked hashes")


@dataclass(frozen=True)
class Completed:
    """A row with its outcome."""

    row: int
    values: dict[str, Any]
    failure: Failure | None = None
    stored: bytes | None = None
    original: bytes | None = None
    ledger: dict[str, Any] | None = None


class Arrived:
    """What was fetched for the rows that want it, before it is decoded.

    `sha256` is said where the body is no longer what the server sent.
    """

    def __init__(
        self, wanted: list[Wanted], fetched: Fetched, block_lists: BlockLists, sha256: str | None = None
    ) -> None:
        self.wanted = wanted
        self.fetched = fetched
        self.block_lists = block_lists
        self.sha256 = "" if fetched.body is None else sha256 or hashlib.sha256(fetched.body).hexdigest()

    @property
    def to_decode(self) -> bytes | None:
        """The bytes to make a picture of; None where there are none, or blocked ones."""
        return None if self.sha256 in self.block_lists.sha256 else self.fetched.body


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
    status = outcome.status if outcome else OK
    for place, one in enumerate(arrived.wanted):
        ledger = ledger_line(one.key, one.url, fetched, status) if place == 0 and fetched.at else None
        yield Completed(one.row, values, outcome, stored, fetched.body if stored else None, ledger)


def mismatches(found: Sequence[str | None], expected: Sequence[str | None]) -> dict[int, Failure]:
    """The rows whose bytes are not those that the source saw, by the SHA-256 of both."""
    return {
        row: Failure("sha256_mismatch", f"the fetched bytes have the SHA-256 {sha256}, the source expects {wanted}")
        for row, (sha256, wanted) in enumerate(zip(found, expected, strict=True))
        if sha256 and wanted and wanted.strip() and wanted.strip().lower() != sha256
    }


def _outcome(arrived: Arrived, picture: Stored | DecodeError | None) -> Failure | None:
    """Why there is no picture, or none that may be kept; None where there is one."""
    if arrived.fetched.body is None:
        return Failure(arrived.fetched.status, arrived.fetched.error)
    if arrived.sha256 in arrived.block_lists.sha256:
        return _BLOCKED
    if isinstance(picture, DecodeError):
        return Failure(picture.status, str(picture))
    return _BLOCKED if picture is not None and arrived.block_lists.picture(picture.bytes) else None
