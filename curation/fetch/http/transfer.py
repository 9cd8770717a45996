"""One request on the wire: a libcurl handle, what its callbacks saw, and what that means.

A handle serves one request after another. Callbacks never raise (libcurl's loop would hang): they note a verdict and
return a value that ends the transfer.
"""

import socket
from dataclasses import dataclass
from time import time

import pycurl

from curation.fetch import outcomes
from curation.fetch.hosts.opt_out import robots_tag_refusal, tdm_reserved
from curation.fetch.hosts.robots import MOST_BYTES, product_token
from curation.fetch.http.addresses import AddressGuard
from curation.fetch.http.head import NO_HEAD, REDIRECTS, WITH_BODY, Head, read_head, retry_after_s
from curation.fetch.http.urls import Target
from curation.fetch.outcomes import OK, http_class
from curation.fetch.policy import FetchPolicy

_BUFFER_BYTES = 256 * 1024
_NAMES_KEPT_S = 600
_MOST_IGNORED_BYTES = 16 * 1024  # of an error page, read so that the connection can be used again
_GO_ON, _END = None, 0  # what a callback returns
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


# A reason stands in curated files, which must not know how many milliseconds something took.
_SENTENCES = {
    outcomes.DNS: "the host's name could not be resolved in time",
    outcomes.CONNECT: "no connection could be made, or it was lost before an answer began",
    outcomes.TIMEOUT: "no whole answer came in the time that an attempt has",
    outcomes.TOO_SLOW: "the answer came too slowly",
    outcomes.BROKEN_ANSWER: "the answer was cut short, or goes against the protocol",
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
    detail: str = ""  # libcurl's own words, with times and lengths that another run would have otherwise


@dataclass
class _Seen:
    """What was seen of one request."""

    verdict: tuple[str, str] | None = None  # (status, sentence) that ended it
    refusal: tuple[str, str] | None = None  # of the last address that was not connected to
    named_network: bool = False
    head: Head | None = None  # once the body begins, or the answer has ended
    body_bytes: int = 0

    @property
    def http_status(self) -> int | None:
        """Of the last answer."""
        return self.head.http_status if self.head else None


class Transfer:
    """A libcurl handle with its callbacks."""

    def __init__(self, policy: FetchPolicy, guard: AddressGuard, ca_file: str) -> None:
        self._policy = policy
        self._guard = guard
        self._token = product_token(policy.user_agent)
        self._seen = _Seen()
        self._lines: list[bytes] = []
        self._pieces: list[bytes] = []
        self._limits: tuple[int, ...] = ()
        self._site_file = False
        self.handle = pycurl.Curl()
        for option, value in _options(policy, ca_file).items():
            self.handle.setopt(option, value)
        self.handle.setopt(pycurl.OPENSOCKETFUNCTION, self._on_open_socket)
        # A dozen headers an answer: they are kept by C code, and read once. libcurl stops at 300 kB.
        self.handle.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._on_body)

    @property
    def heard(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self._lines)

    def aim(self, target: Target, left_s: float, *, site_file: bool = False) -> None:
        """Make the handle ready for the next request, which has `left_s` seconds.

        Of a site's own file (robots.txt, tdmrep.json) only the beginning is read, and its headers bind nobody.
        """
        self._seen = _Seen()
        self._lines.clear()
        self._pieces.clear()
        self._site_file = site_file
        left_ms = max(1, int(left_s * 1000))
        limits = left_ms, min(left_ms, int(self._policy.connect_s * 1000)), 0 if site_file else self._policy.max_bytes
        if limits != self._limits:
            self._limits = limits
            self.handle.setopt(pycurl.TIMEOUT_MS, limits[0])
            self.handle.setopt(pycurl.CONNECTTIMEOUT_MS, limits[1])
            self.handle.setopt(pycurl.MAXFILESIZE_LARGE, limits[2])
        self.handle.setopt(pycurl.URL, target.url)

    def answer(self, code: int, message: str) -> Answer:
        """What the finished request brought; `code` and `message` are libcurl's, 0 for done."""
        seen = self._seen
        if seen.head is None and self._lines:
            self._read_head()
        status, error = self._judge(code, message)
        head = seen.head or NO_HEAD
        redirects = head.complete and head.http_status in REDIRECTS and not seen.verdict
        answer = Answer(
            status,
            error,
            b"".join(self._pieces) if status == OK else None,
            head.http_status,
            head.header(b"content-type"),
            head.header(b"location") if redirects else None,
            retry_after_s(head.header(b"retry-after"), time()),
            seen.named_network,
            code == pycurl.E_OPERATION_TIMEDOUT,
            message,
        )
        self._pieces.clear()
        return answer

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
            self._seen.verdict = outcomes.CONNECT, f"no socket could be opened: {error}"
            return pycurl.SOCKET_BAD

    def _read_head(self) -> None:
        """Read the headers, and judge by them whether the body is wanted."""
        seen = self._seen
        seen.head = head = read_head(self._lines)
        seen.verdict = seen.verdict or head.fault
        if seen.verdict or head.http_status not in WITH_BODY or self._site_file:
            return
        seen.verdict = self._unwanted(head)

    def _unwanted(self, head: Head) -> tuple[str, str] | None:
        if head.encoded:
            return outcomes.ENCODED, "the answer is compressed, which was not asked for"
        if head.length > self._policy.max_bytes:
            return self._too_large
        if self._policy.opt_out:
            directive = robots_tag_refusal(head.all(b"x-robots-tag"), self._token)
            if directive:
                return outcomes.OPT_OUT_HEADER, f"the answer's X-Robots-Tag says {directive}"
            if tdm_reserved(head.header(b"tdm-reservation")):
                return outcomes.TDM_RESERVED, "the answer's header tdm-reservation reserves the rights"
        return None

    def _on_body(self, piece: bytes) -> int | None:
        try:
            seen = self._seen
            if seen.head is None:
                self._read_head()
            seen.body_bytes += len(piece)
            if seen.verdict:
                return _END
            if seen.http_status not in WITH_BODY:
                return _END if seen.body_bytes > _MOST_IGNORED_BYTES else _GO_ON
            if seen.body_bytes > (MOST_BYTES if self._site_file else self._policy.max_bytes):
                seen.verdict = None if self._site_file else self._too_large
                return _END
            self._pieces.append(piece)
            return _GO_ON
        except Exception as error:  # nothing may leave a callback
            self._seen.verdict = outcomes.BROKEN_ANSWER, f"the answer could not be read: {error}"
            return _END

    @property
    def _too_large(self) -> tuple[str, str]:
        return outcomes.TOO_LARGE, f"the answer is longer than {self._policy.max_bytes} bytes"

    def _judge(self, code: int, message: str) -> tuple[str, str]:
        """(status, sentence) of a finished request; an HTTP status says more than how its error page ended."""
        seen = self._seen
        if seen.verdict:
            return seen.verdict
        if seen.head and seen.head.complete and seen.http_status not in WITH_BODY:
            return _without_picture(seen.http_status or 0)
        if self._site_file and seen.body_bytes > MOST_BYTES:
            return OK, ""
        return _judge(seen, code, message)


def _judge(seen: _Seen, code: int, message: str) -> tuple[str, str]:
    """(status, sentence) of what libcurl says about an answer with a picture, or about none."""
    if code == 0 and not (seen.head and seen.head.complete):
        return outcomes.BROKEN_ANSWER, "the answer has no proper head, or ends in it"
    if code == 0:
        return (OK, "") if seen.body_bytes else (outcomes.EMPTY, "the answer has no body")
    if code == pycurl.E_COULDNT_CONNECT and seen.refusal:
        return seen.refusal
    if code == pycurl.E_OPERATION_TIMEDOUT:  # libcurl tells only in words which limit was reached
        slow = outcomes.TOO_SLOW if "too slow" in message.lower() else outcomes.TIMEOUT
        status = outcomes.DNS if message.startswith("Resolving timed out") else slow
        return status, _SENTENCES[status]
    status = _CLASSES.get(code, outcomes.BROKEN_ANSWER)
    if status == outcomes.CONNECT and seen.http_status is not None:
        status = outcomes.BROKEN_ANSWER  # the connection was there, and lost in the middle
    return status, _SENTENCES.get(status) or message or f"libcurl error {code}"


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
        pycurl.BUFFERSIZE: _BUFFER_BYTES,
        pycurl.TCP_NODELAY: 1,
        pycurl.DNS_CACHE_TIMEOUT: _NAMES_KEPT_S,  # the multi handle's, so all transfers share it
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
