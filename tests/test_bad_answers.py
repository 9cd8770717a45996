"""Every way of answering badly that we could think of has its outcome, and none holds a fetch up."""

import contextlib
import gzip
import socket
import ssl
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import (
    Answer,
    Web,
    answer,
    certificate,
    dripping,
    endless,
    endless_headers,
    redirect,
    reset,
    silent,
)

from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.http.engine import fetch
from curation.fetch.http.head import read_head, retry_after_s
from curation.fetch.http.urls import UrlError, parse_url, redirected
from curation.fetch.outcomes import Fetched, Request
from curation.fetch.policy import FetchPolicy

TIMEOUT_S = 1.0
POLICY = FetchPolicy(
    timeout_s=TIMEOUT_S, retries=0, backoff_s=0.01, max_bytes=2000, robots=False, allow_networks=("127.0.0.1/32",)
)
BODY = b"a picture, more or less" * 20
OK_HEAD = b"HTTP/1.1 200 OK\r\n"


def head(*lines: bytes) -> bytes:
    return OK_HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + end


def then_reset(sent: bytes) -> Answer:
    """Send something, then tear the connection down."""

    def page(connection: socket.socket, web: Web) -> None:
        connection.sendall(sent)
        time.sleep(0.05)
        reset(connection, web)

    return page


def then_silence(sent: bytes) -> Answer:
    """Send something, then nothing more."""

    def page(connection: socket.socket, web: Web) -> None:
        connection.sendall(sent)
        web.closed.wait(10)

    return page


def drip(sent: bytes) -> Answer:
    """Send something byte by byte."""
    return drip_after(b"", sent)


def drip_after(before: bytes, sent: bytes) -> Answer:
    """Send something, and then more byte by byte."""

    def page(connection: socket.socket, web: Web) -> None:
        connection.sendall(before)
        for i in range(len(sent)):
            if web.closed.wait(0.1):
                return
            connection.sendall(sent[i : i + 1])

    return page


def encoded(name: str, body: bytes) -> bytes:
    return answer(body, "200 OK", f"Content-Encoding: {name}")


def bomb() -> bytes:
    """Two thousand bytes that would be two million."""
    return gzip.compress(bytes(2_000_000))


WHOLE = answer(BODY)
CHUNKED = head(b"Transfer-Encoding: chunked")
KINDS: dict[str, tuple[Answer, str]] = {
    # statuses
    "100 and no more": (then_silence(b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    "100, then the answer": (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, "ok"),
    "a hundred times 100": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + WHOLE, "broken_answer"),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + BODY, "broken_answer"),
    "103, then the answer": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + WHOLE, "ok"),
    **{
        f"{number}": (answer(BODY, f"{number} Something"), status)
        for number, status in {
            201: "http_other", 202: "http_other", 203: "ok", 206: "broken_answer", 207: "http_other", 226: "http_other",
            300: "http_other", 301: "http_other", 304: "http_other", 305: "http_other", 400: "http_4xx",
            401: "http_4xx", 402: "http_4xx", 403: "http_4xx", 404: "http_404", 405: "http_4xx", 406: "http_4xx",
            407: "http_4xx", 408: "http_408", 410: "http_410", 418: "http_4xx", 425: "http_4xx", 429: "http_429",
            451: "http_4xx", 500: "http_5xx", 501: "http_5xx", 502: "http_5xx", 503: "http_5xx", 504: "http_5xx",
            511: "http_5xx", 520: "http_5xx", 599: "http_5xx", 600: "http_other", 999: "http_other",
        }.items()
    },
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "empty"),
    "205": (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "empty"),
    "status -1": (b"HTTP/1.1 -1 What\r\n\r\n" + BODY, "broken_answer"),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n" + BODY, "broken_answer"),
    "status of words": (b"HTTP/1.1 OK\r\n\r\n" + BODY, "broken_answer"),
    "401 that asks for a password": (answer(b"", "401 Who", 'WWW-Authenticate: Basic realm="x"'), "http_4xx"),
    "429 with a billion seconds": (answer(b"", "429 Slow", "Retry-After: 1000000000"), "http_429"),
    "429 with a date": (answer(b"", "429 Slow", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"), "http_429"),
    "429 with nonsense": (answer(b"", "429 Slow", "Retry-After: soon"), "http_429"),
    # protocol
    "no answer": (b"", "connect"),
    "no status line": (b"Content-Type: image/png\r\n\r\n" + BODY, "broken_answer"),
    "HTTP/0.9": (BODY, "broken_answer"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + BODY, "ok"),
    "HTTP/3.7": (b"HTTP/3.7 200 OK\r\n\r\n" + BODY, "broken_answer"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "broken_answer"),
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", "broken_answer"),
    "bytes of no protocol": (bytes(range(256)) * 10, "broken_answer"),
    "an ICY stream": (b"ICY 200 OK\r\n\r\n" + BODY, "broken_answer"),
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", "ok"),
    # connections
    "reset at once": (reset, "connect"),
    "reset in the status line": (then_reset(b"HTTP/1.1 2"), "connect"),
    "reset in the headers": (then_reset(OK_HEAD + b"Content-Le"), "broken_answer"),
    "reset before the body": (then_reset(head(b"Content-Length: 1000")), "broken_answer"),
    "reset in the body": (then_reset(head(b"Content-Length: 1000") + BODY), "broken_answer"),
    "reset after the body": (then_reset(WHOLE), "ok"),
    "closed in the headers": (OK_HEAD + b"Content-Le", "broken_answer"),
    "closed at half of its length": (answer(BODY[:100], length=200), "broken_answer"),
    "one byte short": (answer(BODY, length=len(BODY) + 1), "broken_answer"),
    "silent": (silent, "timeout"),
    "silent in the status line": (then_silence(b"HTTP/1.1 2"), "timeout"),
    "silent in the headers": (then_silence(OK_HEAD + b"Content-Type: im"), "timeout"),
    "silent in the body": (then_silence(head(b"Content-Length: 1000") + BODY), "timeout"),
    "silent after the body": (then_silence(head(b"Content-Length: %d" % len(BODY)) + BODY), "ok"),
    "headers drip": (drip(head(b"X-Slow: " + b"x" * 1000)), "timeout"),
    "body drips": (drip_after(head(b"Content-Length: 100"), b"x" * 100), "timeout"),
    "body drips that would be too long": (dripping, "too_large"),
    # lengths
    "length too small": (head(b"Content-Length: 3") + b"abcdef", "ok"),
    "length negative": (head(b"Content-Length: -5") + BODY, "broken_answer"),
    "length of words": (head(b"Content-Length: many") + BODY, "broken_answer"),
    "length in hex": (head(b"Content-Length: 0x10") + BODY, "broken_answer"),
    "length beyond 64 bits": (head(b"Content-Length: 99999999999999999999999") + BODY, "too_large"),
    "two lengths": (head(b"Content-Length: 5", b"Content-Length: 10") + BODY, "broken_answer"),
    "one length twice": (head(b"Content-Length: 3", b"Content-Length: 3") + b"abc", "ok"),
    "two lengths in one line": (head(b"Content-Length: 5, 10") + BODY, "broken_answer"),
    "length and chunks": (head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", "ok"),
    "no length": (OK_HEAD + b"Content-Type: image/png\r\n\r\n" + BODY, "ok"),
    "length zero": (answer(b""), "empty"),
    "too long by its length": (answer(b"", length=10**12), "too_large"),
    "too long without a length": (OK_HEAD + b"\r\n" + b"x" * 5000, "too_large"),
    "one byte too long": (answer(b"x" * 2001), "too_large"),
    "as long as is allowed": (answer(b"x" * 2000), "ok"),
    # chunks
    "chunks": (chunked(b"abc", b"defg"), "ok"),
    "no chunk": (chunked(), "empty"),
    "chunk size of words": (CHUNKED + b"zz\r\nabc", "broken_answer"),
    "chunk size negative": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", "broken_answer"),
    "chunk size beyond 64 bits": (CHUNKED + b"f" * 20 + b"\r\nabc", "broken_answer"),
    "chunk extension": (CHUNKED + b"3;x=y\r\nabc\r\n0\r\n\r\n", "ok"),
    "huge chunk extension": (CHUNKED + b"3;" + b"x" * 200_000 + b"\r\nabc\r\n0\r\n\r\n", "ok"),
    "no last chunk": (chunked(b"abc", end=b""), "broken_answer"),
    "chunk cut short": (CHUNKED + b"10\r\nabc", "broken_answer"),
    "chunk longer than it says": (CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n", "broken_answer"),
    "trailers": (chunked(b"abc", end=b"0\r\nX-Robots-Tag: noai\r\nContent-Length: 7\r\n\r\n"), "ok"),
    "endless chunks": (endless, "too_large"),
    "endless empty lines": (b"\r\n" * 100_000, "broken_answer"),
    # headers
    "endless headers": (endless_headers, "broken_answer"),
    "a header of 10 MB": (OK_HEAD + b"X: " + b"x" * 10_000_000 + b"\r\n\r\n", "broken_answer"),
    "50,000 headers": (OK_HEAD + b"X: y\r\n" * 50_000 + b"\r\n" + BODY, "broken_answer"),
    "101 headers": (head(*[b"X: y"] * 101) + BODY, "broken_answer"),
    "NUL in a header": (head(b"X: a\x00b") + BODY, "broken_answer"),
    "a header without a colon": (head(b"nonsense") + BODY, "broken_answer"),
    "a folded header": (head(b"X: a", b"  and more", b"Content-Length: %d" % len(BODY)) + BODY, "ok"),
    "UTF-8 in a header": (head("Content-Type: image/pñg; ☃".encode()) + BODY, "ok"),
    "Latin-1 in a header": (head(b"Content-Type: \xe9") + BODY, "ok"),
    "a storm of cookies": (head(*[b"Set-Cookie: a=b; Max-Age=1000"] * 90) + BODY, "ok"),
    "HSTS and Alt-Svc": (head(b"Strict-Transport-Security: max-age=1", b'Alt-Svc: h3=":443"') + BODY, "ok"),
    # encodings
    **{
        f"encoded as {name}": (encoded(name, body), "encoded")
        for name, body in {
            "gzip": gzip.compress(BODY), "x-gzip": gzip.compress(BODY), "GZIP": gzip.compress(BODY),
            "deflate": zlib.compress(BODY), "br": b"\x0b\x02\x80abc\x03", "zstd": b"\x28\xb5\x2f\xfd", "compress": b"x",
            "gzip, gzip": gzip.compress(gzip.compress(BODY)), "gzip, identity": gzip.compress(BODY), "unheard-of": b"x",
        }.items()
    },
    "gzip cut short": (encoded("gzip", gzip.compress(BODY)[:20]), "encoded"),
    "a gzip bomb": (encoded("gzip", bomb()), "encoded"),
    "many empty gzip members": (encoded("gzip", gzip.compress(b"") * 50), "encoded"),
    "encoded as identity": (encoded("identity", BODY), "ok"),
    "encoded in transfer": (head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", "encoded"),
    "transfer coding unheard of": (head(b"Transfer-Encoding: smoke") + BODY, "encoded"),
    "a page that is encoded": (answer(gzip.compress(BODY), "404 Not Found", "Content-Encoding: gzip"), "http_404"),
    # content: the engine takes it, what decodes pictures refuses it
    "a page of HTML": (answer(b"<html>hello</html>", "200 OK", "Content-Type: text/html"), "ok"),
    "a page that refreshes": (answer(b'<meta http-equiv="refresh" content="0; url=/x">'), "ok"),
    "a wrong type": (answer(BODY, "200 OK", "Content-Type: application/x-sh"), "ok"),
    # redirects
    "redirect to itself": (redirect("/page"), "redirects"),
    "redirect to nothing": (redirect(""), "redirects"),
    "redirect without a location": (answer(b"", "302 Found"), "http_other"),
    "redirect to a fragment": (redirect("#part"), "redirects"),
    "redirect to another scheme": (redirect("ftp://127.0.0.1/x"), "unsafe_url"),
    "redirect to a file": (redirect("file:///etc/passwd"), "unsafe_url"),
    "redirect to a script": (redirect("javascript:alert(1)"), "unsafe_url"),
    "redirect to data": (redirect("data:image/png;base64,iVBORw0KGgo="), "unsafe_url"),
    "redirect with a user": (redirect("http://user@127.0.0.1/"), "unsafe_url"),
    "redirect to another network": (redirect("http://127.0.0.2/"), "unsafe_address"),
    "redirect to IPv6": (redirect("http://[::1]/"), "unsafe_address"),
    "redirect to no port": (redirect("http://127.0.0.1:0/"), "bad_url"),
    "redirect to a closed port": (redirect("http://127.0.0.1:9/"), "connect"),
    "redirect too long": (redirect("/" + "x" * 8000), "redirects"),
    "redirect to bytes": (b"HTTP/1.1 302 Found\r\nLocation: /\xff\xfe\r\nContent-Length: 0\r\n\r\n", "http_404"),
    "redirect with two locations": (answer(b"", "302 Found", "Location: /page", "Location: /other"), "broken_answer"),
}  # fmt: skip


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def fetch_all(*urls: str, **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    patient = HostPolicy(HostLimits(failures=1000, most_pause_s=1e12))  # else a page's manners are those of its host
    results = fetch(map(Request, range(len(urls)), urls), policy, patient)
    return sorted(results, key=lambda result: result.row)


def test_there_are_more_than_sixty_kinds() -> None:
    assert len(KINDS) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_answer_has_its_outcome_in_time(web: Web, kind: str) -> None:
    page, status = KINDS[kind]
    before = time.monotonic()
    result = fetch_all(web.serve("/page", page), opt_out=False)[0]
    assert time.monotonic() - before < TIMEOUT_S + 0.7
    assert result.status == status, result.error
    assert (result.error == "") == (status == "ok") == (result.body is not None)


def test_all_of_them_at_once_end_in_the_time_of_the_slowest(web: Web) -> None:
    # Not those that go on at the same host: they may get a connection that another page has spoilt.
    kinds = {kind: case for kind, case in KINDS.items() if not kind.startswith("redirect")}
    urls = [web.serve(f"/{i}", page) for i, (page, _) in enumerate(kinds.values())]
    before = time.monotonic()
    results = fetch_all(*urls, opt_out=False, concurrency=200, timeout_s=4 * TIMEOUT_S)
    assert time.monotonic() - before < 4 * TIMEOUT_S + 1
    told = {kind: result.status for kind, result in zip(kinds, results, strict=True)}
    assert {kind: status for kind, status in told.items() if status != kinds[kind][1]} == {}


@pytest.mark.parametrize("sent", [WHOLE, BODY, b"", OK_HEAD], ids=["an answer", "a body", "nothing", "a head"])
def test_https_to_a_port_without_tls_fails_as_such(web: Web, sent: bytes) -> None:
    plain = Web(raw=sent)
    result = fetch_all(plain.url("/").replace("http:", "https:"))[0]
    plain.close()
    assert result.status in ("tls", "connect")


def served_with(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(
    ("made", "trusted", "status"),
    [
        ({}, True, "ok"),
        ({}, False, "tls"),
        ({"name": "127.0.0.2"}, True, "tls"),
        ({"days": (-20, -10)}, True, "tls"),
        ({"days": (10, 20)}, True, "tls"),
    ],
    ids=["good", "self-signed", "wrong host", "expired", "not yet valid"],
)
def test_certificates_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, object], trusted: bool, status: str
) -> None:
    path = certificate(tmp_path, **made)  # type: ignore[arg-type]
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    web = Web(tls=served_with(path))
    url = web.serve("/", answer(b"here"))
    assert fetch_all(url, opt_out=False)[0].status == status
    assert fetch_all(url.replace("https:", "http:"), opt_out=False)[0].status in ("connect", "broken_answer")
    web.close()


def test_what_follows_an_answer_is_never_taken_for_the_next_one(web: Web) -> None:
    reused: list[bytes] = []

    def desync(connection: socket.socket, _web: Web) -> None:
        connection.sendall(head(b"Content-Length: 3") + b"abc" + answer(b"evil"))
        connection.settimeout(2)
        with contextlib.suppress(OSError):  # the client tears the connection down, with what it has not read
            reused.append(connection.recv(1000))

    urls = [web.serve(f"/desync{i}", desync) for i in range(4)]
    results = fetch_all(*urls, concurrency=1, opt_out=False)
    assert [result.body for result in results] == [b"abc"] * 4
    assert set(reused) <= {b""}


def test_no_cookie_is_sent_back(web: Web) -> None:
    first = web.serve("/cookie", answer(BODY, "200 OK", "Set-Cookie: a=b; Path=/"))
    fetch_all(first, web.serve("/after", answer(BODY)), concurrency=1, opt_out=False)
    assert "ookie" not in web.heads["/after"]


@given(st.lists(st.binary()))
def test_no_head_raises(lines: list[bytes]) -> None:
    found = read_head([OK_HEAD, *lines])
    assert found.http_status is not None
    assert isinstance(found.encoded, bool)
    assert found.length >= 0


HEADER_LINES = st.sampled_from(
    [b"HTTP/1.1 302 Found", b"HTTP/1.1 x", b"Location: /a", b"Location:", b"content-LENGTH: 5", b"Content-Length: -1",
     b" folded", b":", b"X-Robots-Tag: noai", b"Retry-After: \xff", b"Content-Encoding: gzip", b"\r\n"]
)  # fmt: skip


@given(st.lists(HEADER_LINES, max_size=20))
def test_no_mixture_of_headers_raises(lines: list[bytes]) -> None:
    found = read_head(lines)
    assert found.header(b"location") is None or isinstance(found.header(b"location"), str)
    retry_after_s(found.header(b"retry-after"), 0.0)


@given(st.text() | st.sampled_from(["0", "12", "-1", "1e9", "٣", "Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 99 Oct 2099"]))
def test_no_retry_after_raises(value: str) -> None:
    found = retry_after_s(value, 1e9)
    assert found is None or found >= 0


URLS = st.text() | st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP:", "data:", "http:\\\\", "//", "http://a@", ""]),
    st.text(st.sampled_from("abc.-_[]:%@\\ ä。１/\t0x7f"), max_size=20),
    st.sampled_from(["", ":80", ":0", ":99999", ":x", "/"]),
    st.text(st.sampled_from("/?#%& ä\\\x00\n.."), max_size=10),
)


@given(URLS)
def test_a_url_is_refused_or_written_so_that_it_reads_the_same_again(url: str) -> None:
    try:
        target = parse_url(url)
    except UrlError:
        return
    assert target.url.isascii()
    assert parse_url(target.url) == target
    assert target.url.startswith(("http://", "https://"))
    assert target.url.startswith(target.site + "/")


@given(URLS | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_a_location_is_refused_or_leads_to_a_plain_url(location: str) -> None:
    try:
        target = redirected(parse_url("http://example.com/a/b?c"), location)
    except UrlError:
        return
    assert parse_url(target.url) == target


@given(st.text())
def test_data_urls_are_refused(text: str) -> None:
    with pytest.raises(UrlError) as caught:
        parse_url(f"data:{text}")
    assert caught.value.status in ("unsafe_url", "bad_url")
