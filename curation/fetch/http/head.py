"""The head of an answer: its status and the few headers that matter, read from the lines that libcurl gives."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from curation.fetch import outcomes

REDIRECTS = (301, 302, 303, 307, 308)
WITH_BODY = (200, 203)
_MOST_BYTES, _MOST_LINES, _MOST_LOCATION_BYTES = 64 * 1024, 100, 2048
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +([0-9]{3})\b")
_WANTED = frozenset(
    b"content-encoding content-length content-type location retry-after tdm-reservation transfer-encoding "
    b"x-robots-tag".split()
)
_PLAIN = (b"", b"identity", b"chunked")


@dataclass
class Head:
    """The head of an answer; 100 Continue and its like, which come before it, are none."""

    http_status: int | None = None
    headers: dict[bytes, list[bytes]] = field(default_factory=dict)  # by lower-case name: every value
    complete: bool = False  # it has come to its end
    fault: tuple[str, str] | None = None  # (status, sentence) of a head that is not accepted

    def all(self, name: bytes) -> list[str]:
        """Every value of a header."""
        return [_text(value) for value in self.headers.get(name, ())]

    def header(self, name: bytes) -> str | None:
        """The last value of a header."""
        values = self.headers.get(name)
        return _text(values[-1]) if values else None

    @property
    def length(self) -> int:
        """The length that the body is said to have; 0 where nothing is said that can be read."""
        value = (self.header(b"content-length") or "").strip()
        return int(value[:20]) if value.isascii() and value.isdigit() else 0

    @property
    def encoded(self) -> bool:
        """Whether the body is said to be compressed, in whatever way."""
        values = [*self.headers.get(b"content-encoding", ()), *self.headers.get(b"transfer-encoding", ())]
        return any(value.strip().lower() not in _PLAIN for value in values)


NO_HEAD = Head()


def read_head(lines: Sequence[bytes]) -> Head:
    """The head that lines of an answer say; never raises."""
    head = Head()
    if len(lines) > _MOST_LINES or sum(map(len, lines)) > _MOST_BYTES:
        head.fault = outcomes.BROKEN_ANSWER, "the headers of the answer are too long"
        lines = lines[:_MOST_LINES]
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:5] == b"HTTP/" and (status_line := _STATUS_LINE.match(line)):
            http_status = int(status_line[1])
            head.http_status, head.headers = None if http_status < 200 else http_status, {}
        elif not line.strip() and head.http_status is not None:
            head.complete = True
            break  # what follows a body are trailers
        elif colon and (name := name.rstrip().lower()) in _WANTED:
            head.headers.setdefault(name, []).append(value.strip())
    if head.http_status in REDIRECTS and _longest(head.headers.get(b"location", ())) > _MOST_LOCATION_BYTES:
        head.fault = head.fault or (outcomes.REDIRECTS, "the answer redirects to a URL that is too long")
    return head


def retry_after_s(value: str | None, now: float) -> float | None:
    """The pause that a Retry-After header asks for, in seconds or until a date; `now` is seconds since 1970."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch("[0-9]+", value):
        return float(value[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _longest(values: Iterable[bytes]) -> int:
    return max(map(len, values), default=0)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
