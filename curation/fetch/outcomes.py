"""What a fetch is asked for and what comes of it: requests, results, and the classes of failure."""

from dataclasses import dataclass

OK = "ok"
BAD_URL = "bad_url"  # cannot be read as an http(s) URL
UNSAFE_URL = "unsafe_url"  # another scheme, or a user name in it
UNSAFE_ADDRESS = "unsafe_address"  # a private or special address
UNSAFE_PORT = "unsafe_port"
DNS = "dns"  # the resolver failed, which says nothing about the name
NO_SUCH_HOST = "no_such_host"  # the resolver says that there is no such name, or that it has no address
CONNECT = "connect"  # no connection, or lost before an answer began
HOST_DOWN = "host_down"  # not asked, because its domain gave no answers, or wants to be left alone
DEADLINE = "deadline"  # not done when the time for its part was over
ROBOTS_DISALLOWED = "robots_disallowed"
ROBOTS_UNREACHABLE = "robots_unreachable"  # the site answers, but what its robots.txt says cannot be known for now
OPT_OUT_HEADER = "opt_out_header"  # X-Robots-Tag
TDM_RESERVED = "tdm_reserved"  # the rights to text and data mining, by header or tdmrep.json
BLOCKED_DOMAIN, BLOCKED_HASH = "blocked_domain", "blocked_hash"  # by the user's own lists
TLS = "tls"
TIMEOUT = "timeout"
TOO_SLOW = "too_slow"
TOO_LARGE = "too_large"
ENCODED = "encoded"  # a compressed answer, which we did not ask for
EMPTY = "empty"
REDIRECTS = "redirects"
BROKEN_ANSWER = "broken_answer"  # against the protocol, or cut short
HTTP_404, HTTP_408, HTTP_410, HTTP_429 = "http_404", "http_408", "http_410", "http_429"
HTTP_4XX, HTTP_5XX, HTTP_OTHER = "http_4xx", "http_5xx", "http_other"

# Tried again at once, a few times, with growing pauses.
RETRIED = frozenset({DNS, CONNECT, TIMEOUT, TOO_SLOW, BROKEN_ANSWER, HTTP_408, HTTP_429, HTTP_5XX})
# What a picture did to its decoder, in company and alone: it may pass with another version, more memory, less load.
DECODE_CRASH, DECODE_TIMEOUT, DECODE_OOM = "decode_crash", "decode_timeout", "decode_oom"
# Tried again only when the user asks for it: what may pass, and what hangs on a setting (allow_networks) or a clock.
PASSING = (
    RETRIED
    | {NO_SUCH_HOST, HOST_DOWN, DEADLINE, ROBOTS_UNREACHABLE, TLS, UNSAFE_ADDRESS, UNSAFE_PORT}
    | {DECODE_CRASH, DECODE_TIMEOUT, DECODE_OOM}
)


@dataclass(frozen=True)
class Request:
    """One URL to fetch; `row` is the caller's own number for it and comes back with the result."""

    row: int
    url: str


@dataclass(frozen=True)
class Fetched:
    """What came of one request. `body` is there exactly when `status` is ok; else `error` is a sentence."""

    row: int
    status: str
    error: str = ""
    body: bytes | None = None
    http_status: int | None = None  # of the last answer
    attempts: int = 0
    seconds: float = 0.0  # in transfer, all attempts together
    host: str = ""
    content_type: str | None = None
    redirects: int = 0  # of the last attempt
    at: float | None = None  # when it was known, in seconds since 1970
    detail: str = ""  # what the client said of it, with times and lengths


def http_class(http_status: int) -> str:
    """The class of failure of an HTTP status that brings no picture."""
    own = f"http_{http_status}"
    if own in (HTTP_404, HTTP_408, HTTP_410, HTTP_429):
        return own
    return {4: HTTP_4XX, 5: HTTP_5XX}.get(http_status // 100, HTTP_OTHER)
