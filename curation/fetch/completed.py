"""From the answer for a URL to the outcome of every row that wants it: digests, the stored picture, a ledger line.

`Arrived` is what is known before the picture is decoded, `completed` makes the outcomes of both.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.fetch.ledger import ledger_line
from curation.fetch.once_per_url import Wanted
from curation.fetch.outcomes import OK, Fetched
from curation.fetch.to_stored import Stored
from curation.operator import Failure
from schemas.columns import HTTP_STATUS, ORIGINAL_HEIGHT_PX, ORIGINAL_WIDTH_PX, SHA256, STORED_SHA256
from schemas.pixels import DecodeError

SHA256_MISMATCH = "sha256_mismatch"


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

    def __init__(self, wanted: list[Wanted], fetched: Fetched) -> None:
        self.wanted = wanted
        self.fetched = fetched
        self.sha256 = "" if fetched.body is None else hashlib.sha256(fetched.body).hexdigest()
        self.mismatches = [None if fetched.body is None else _mismatch(one, self.sha256) for one in wanted]

    @property
    def to_decode(self) -> bytes | None:
        """The bytes to make a picture of; None where there are none, or others than expected by every row."""
        return self.fetched.body if None in self.mismatches else None


def completed(arrived: Arrived, picture: Stored | DecodeError | None) -> Iterator[Completed]:
    """The outcome of every row of one URL; the ledger has one line per fetch. `picture` is what `to_decode` became."""
    fetched = arrived.fetched
    values: dict[str, Any] = {HTTP_STATUS.name: fetched.http_status}
    outcome, stored = Failure(fetched.status, fetched.error) if fetched.body is None else None, None
    if arrived.sha256:
        values[SHA256.name] = arrived.sha256
    if isinstance(picture, DecodeError):
        outcome = Failure(picture.status, str(picture))
    elif picture is not None:
        stored = picture.bytes
        values[STORED_SHA256.name] = hashlib.sha256(stored).hexdigest()
        values[ORIGINAL_WIDTH_PX.name] = picture.original_width_px
        values[ORIGINAL_HEIGHT_PX.name] = picture.original_height_px
    for place, (one, mismatch) in enumerate(zip(arrived.wanted, arrived.mismatches, strict=True)):
        failure = mismatch or outcome
        status = failure.status if failure else OK
        ledger = ledger_line(one.key, one.url, fetched, status) if place == 0 and fetched.attempts else None
        yield Completed(one.row, values, failure, None if failure else stored, ledger)


def _mismatch(wanted: Wanted, sha256: str) -> Failure | None:
    if wanted.expected_sha256 in ("", sha256):
        return None
    message = f"the fetched bytes have the SHA-256 {sha256}, the source expects {wanted.expected_sha256}"
    return Failure(SHA256_MISMATCH, message)
