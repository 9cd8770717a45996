"""One request on the wire: a libcurl handle, what its callbacks saw, and what that means.

A handle serves one request after another. Callbacks never raise (libcurl's loop would hang): they note a verdict and
return a value that ends the transfer.
"""

import re
import socket
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time

import pycurl

from curation.fetch import outcomes
from curation.fetch.addresses import AddressGuard
from curation.fetch.outcomes import OK, http_class
from curation.fetch.policy import FetchPolicy
from curation.fetch.urls import Target

_MOST_HEADER_BYTES, _MOST_HEADER_LINES, _MOST_LOCATION_BYTES = 64 * 1024, 100, 2048
_MOST_IGNORED_BYTES = 16 * 1024  # of an error page, read so that the connection can be used again
_REDIRECTS = (301, 302, 303, 307, 308)
_WITH_BODY = (200, 203)
_GO_ON, _END = None, 0  # what a callback returns
_STATUS_LINE = re.compile(rb"HTTP/\S+ +([0-9]{3})\b")
_TLS_ERRORS = (
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_SSL_INVALIDCERTSTATUS,
    pycurl.E_SSL_ISSUER_ERROR,
    pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
)
_CLASSES = {
    pycurl.E_URL_MALFORMAT: outcomes.BAD_URL,
    pycurl.E_COULDNT_RESOLVE_HOST: outcomes.DNS,
    pycurl.E_COULDNT_CONNECT: outcomes.CONNECT,
    pycurl.E_GOT_NOTHING: outcomes.CONNECT,
    pycurl.E_SEND_ERROR: outcomes.CONNECT,
    pycurl.E_RECV_ERROR: outcomes.CONNECT,
    pycurl.E_FILESIZE_EXCEEDED: outcomes.TOO_LARGE,
    pycurl.E_BAD_CONTENT_ENCODING: outcomes.ENCODED,
    **dict.fromkeys(_TLS_ERRORS, outcomes.TLS),
}


@dataclass(frozen=True)
class Answer:
    """What one request brought: a body, a failure, or a `location` to go on to."""

    status: str
    error: str = ""
    body: bytes | None = None
    http_status: int | None = None
    content_type: str | None = None
    location: str | None = None
    retry_after_s: float | None = None
    named_network: bool = False  # the connection went to a network of allow_networks
    timed_out: bool = False


@dataclass
class _Seen:
    """What the callbacks have seen of one request."""

    verdict: tuple[str, str] | None = None  # (status, sentence) that ended it
    refusal: tuple[str, str] | None = None  # of the last address that was not connected to
    named_network: bool = False
    http_status: int | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_bytes: int = 0
    header_lines: int = 0
    pieces: list[bytes] = field(default_factory=list)
    body_bytes: int = 0

    def header(self, name: bytes) -> str | None:
        """A header of the last answer as text."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")


class Transfer:
    """A libcurl handle with its callbacks."""

    def __init__(self, policy: FetchPolicy, guard: AddressGuard, ca_file: str) -> None:
        self._policy = policy
        self._guard = guard
        self._seen = _Seen()
        self.handle = pycurl.Curl()
        for option, value in _options(policy, ca_file).items():
            self.handle.setopt(option, value)
        self.handle.setopt(pycurl.OPENSOCKETFUNCTION, self._on_open_socket)
        self.handle.setopt(pycurl.HEADERFUNCTION, self._on_header)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._on_body)

    @property
    def heard(self) -> bool:
        """Whether anything of the answer has come."""
        return self._seen.header_lines > 0

    def aim(self, target: Target, left_s: float) -> None:
        """Make the handle ready for the next request, which has `left_s` seconds."""
        self._seen = _Seen()
        left_ms = max(1, int(left_s * 1000))
        self.handle.setopt(pycurl.URL, target.url)
        self.handle.setopt(pycurl.TIMEOUT_MS, left_ms)
        self.handle.setopt(pycurl.CONNECTTIMEOUT_MS, min(left_ms, int(self._policy.connect_s * 1000)))

    def answer(self, code: int, message: str) -> Answer:
        """What the finished request brought; `code` and `message` are libcurl's, 0 for done."""
        seen, self._seen = self._seen, _Seen()
        status, error = _judge(seen, code, message)
        redirects = seen.http_status in _REDIRECTS and not seen.verdict
        return Answer(
            status,
            error,
            b"".join(seen.pieces) if status == OK else None,
            seen.http_status,
            seen.header(b"content-type"),
            seen.header(b"location") if redirects else None,
            _seconds(seen.header(b"retry-after")),
            seen.named_network,
            code == pycurl.E_OPERATION_TIMEDOUT,
        )

    def _on_open_socket(self, _purpose: int, address: tuple[int, int, int, tuple[str | bytes, int]]) -> object:
        try:
            family, kind, protocol, (host, port, *_) = address
            text = host.decode() if isinstance(host, bytes) else host
            self._seen.refusal = self._guard.refusal(text, port)
            if self._seen.refusal:
                return pycurl.SOCKET_BAD
            self._seen.named_network = self._guard.names(text)
            return socket.socket(family, kind, protocol)
        except Exception as error:  # nothing may leave a callback
            self._end(outcomes.CONNECT, f"no socket could be opened: {error}")
            return pycurl.SOCKET_BAD

    def _on_header(self, line: bytes) -> int | None:
        seen = self._seen
        seen.header_bytes += len(line)
        seen.header_lines += 1
        if seen.header_bytes > _MOST_HEADER_BYTES or seen.header_lines > _MOST_HEADER_LINES:
            return self._end(outcomes.BROKEN_ANSWER, "the headers of the answer are too long")
        status_line = _STATUS_LINE.match(line)
        if status_line:
            seen.http_status, seen.headers = int(status_line[1]), {}
            return _GO_ON
        name, colon, value = line.partition(b":")
        if colon:
            seen.headers[name.strip().lower()] = value.strip()
            return _GO_ON
        return _GO_ON if line.strip() else self._on_last_header()

    def _on_last_header(self) -> int | None:
        headers = self._seen.headers
        if self._seen.http_status in _REDIRECTS and len(headers.get(b"location", b"")) > _MOST_LOCATION_BYTES:
            return self._end(outcomes.REDIRECTS, "the answer redirects to a URL that is too long")
        if self._seen.http_status not in _WITH_BODY:
            return _GO_ON
        encodings = headers.get(b"content-encoding", b"").lower(), headers.get(b"transfer-encoding", b"").lower()
        if any(encoding not in (b"", b"identity", b"chunked") for encoding in encodings):
            return self._end(outcomes.ENCODED, "the answer is compressed, which was not asked for")
        length = headers.get(b"content-length", b"0")
        return self._too_large() if length.isdigit() and int(length[:20]) > self._policy.max_bytes else _GO_ON

    def _on_body(self, piece: bytes) -> int | None:
        seen = self._seen
        seen.body_bytes += len(piece)
        if seen.http_status not in _WITH_BODY:
            return _END if seen.body_bytes > _MOST_IGNORED_BYTES else _GO_ON
        if seen.body_bytes > self._policy.max_bytes:
            return self._too_large()
        seen.pieces.append(piece)
        return _GO_ON

    def _too_large(self) -> int:
        self._seen.pieces.clear()
        return self._end(outcomes.TOO_LARGE, f"the answer is longer than {self._policy.max_bytes} bytes")

    def _end(self, status: str, error: str) -> int:
        self._seen.verdict = (status, error)
        return _END


def _judge(seen: _Seen, code: int, message: str) -> tuple[str, str]:
    """(status, sentence) of a finished request; an HTTP status says more than how its error page ended."""
    if seen.verdict:
        return seen.verdict
    if seen.http_status is not None and seen.http_status not in _WITH_BODY:
        return _without_picture(seen.http_status)
    if code == 0:
        return (OK, "") if seen.body_bytes else (outcomes.EMPTY, "the answer has no body")
    if code == pycurl.E_COULDNT_CONNECT and seen.refusal:
        return seen.refusal
    if code == pycurl.E_OPERATION_TIMEDOUT:  # libcurl tells only in words which limit was reached
        slow = outcomes.TOO_SLOW if "too slow" in message.lower() else outcomes.TIMEOUT
        return outcomes.DNS if message.startswith("Resolving timed out") else slow, message
    status = _CLASSES.get(code, outcomes.BROKEN_ANSWER)
    if status == outcomes.CONNECT and seen.http_status is not None:
        status = outcomes.BROKEN_ANSWER  # the connection was there, and lost in the middle
    return status, message or f"libcurl error {code}"


def _without_picture(http_status: int) -> tuple[str, str]:
    if http_status in (204, 205):
        return outcomes.EMPTY, f"the server answered {http_status}: no content"
    if http_status == 206:
        return outcomes.BROKEN_ANSWER, "the server answered 206: a part of what was asked for"
    return http_class(http_status), f"the server answered {http_status}"


def _options(policy: FetchPolicy, ca_file: str) -> dict[int, object]:
    """What is the same for every request. Cookies, HSTS, netrc and credentials are off: nothing turns them on."""
    return {
        pycurl.NOSIGNAL: 1,
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROXY: "",  # proxies from the environment would connect on our behalf, unchecked
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
        pycurl.HTTP_CONTENT_DECODING: 0,
        pycurl.HTTPHEADER: ["Accept-Encoding: identity", "Accept: image/*,*/*;q=0.5"],
        pycurl.USERAGENT: policy.user_agent,
        pycurl.LOW_SPEED_LIMIT: policy.slow_bytes_per_s,
        pycurl.LOW_SPEED_TIME: policy.slow_s,
        pycurl.SSL_VERIFYPEER: 1,
        pycurl.SSL_VERIFYHOST: 2,
        pycurl.CAINFO: ca_file,
    }


def _seconds(retry_after: str | None) -> float | None:
    """The pause that a Retry-After header asks for, in seconds or until a date."""
    if retry_after is None:
        return None
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after[:12])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except (ValueError, OverflowError, TypeError):
        return None
