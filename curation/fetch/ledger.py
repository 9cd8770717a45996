"""What is noted of every URL's outcome, for the view `downloads`: what differs from run to run stands here only."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from curation.fetch.outcomes import Fetched

LEDGER = pa.schema(
    {
        "key": pa.string(),  # of the first row that wanted the URL
        "url": pa.string(),
        "host": pa.string(),  # that answered last
        "status": pa.string(),
        "http_status": pa.int16(),
        "attempts": pa.int32(),  # 0: it was not asked for, for the reason that `status` says
        "fetched_at": pa.timestamp("us"),
        "seconds": pa.float64(),
        "fetched_bytes": pa.int64(),
        "content_type": pa.string(),
        "redirects": pa.int32(),
        "detail": pa.string(),  # what the HTTP client said, in its own words
    }
)


def ledger_line(key: str, url: str | None, fetched: Fetched, status: str) -> dict[str, Any]:
    """One outcome as a row of LEDGER; `status` is what became of the row, decoding included."""
    return {
        "key": key,
        "url": url,
        "host": fetched.host,
        "status": status,
        "http_status": fetched.http_status,
        "attempts": fetched.attempts,
        "fetched_at": None if fetched.at is None else datetime.fromtimestamp(fetched.at, UTC).replace(tzinfo=None),
        "seconds": round(fetched.seconds, 3),
        "fetched_bytes": len(fetched.body or b""),
        "content_type": fetched.content_type,
        "redirects": fetched.redirects,
        "detail": fetched.detail or None,
    }
