"""The fetching engine against a web that behaves badly, and the walls around it."""

import datetime
import email.utils
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from misbehaving_web import Web, answer, certificate, dripping, endless, endless_headers, redirect, reset, silent

from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.http.addresses import denied
from curation.fetch.http.certificates import certificates
from curation.fetch.http.engine import fetch
from curation.fetch.http.urls import UrlError, parse_url
from curation.fetch.outcomes import PASSING, RETRIED, Fetched, Request
from curation.fetch.policy import FetchPolicy
from schemas.errors import RunError

HERE = ("127.0.0.1/32",)
POLICY = FetchPolicy(timeout_s=5, retries=0, backoff_s=0.01, robots=False, opt_out=False, allow_networks=HERE)


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def fetch_all(*urls: str, hosts: HostPolicy | None = None, **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    results = list(fetch(map(Request, range(len(urls)), urls), policy, hosts or HostPolicy()))
    assert sorted(result.row for result in results) == list(range(len(urls)))
    assert all((result.status == "ok") == (result.body is not None) == (result.error == "") for result in results)
    return sorted(results, key=lambda result: result.row)


def fetch_one(url: str, **changes: object) -> Fetched:
    return fetch_all(url, **changes)[0]


def becomes(condition: Callable[[], bool]) -> bool:
    """Wait until it holds, for a while."""
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_body_arrives_as_it_was_sent(web: Web) -> None:
    body = os.urandom(300_000)
    result = fetch_one(web.serve("/a.jpg", answer(body, "200 OK", "Content-Type: image/jpeg")))
    assert (result.status, result.body, result.http_status) == ("ok", body, 200)
    assert (result.content_type, result.attempts, result.redirects) == ("image/jpeg", 1, 0)
    assert result.host == "127.0.0.1"
    assert 0 < result.seconds < 5


def test_a_chunked_body_arrives_whole(web: Web) -> None:
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    assert fetch_one(web.serve("/", sent)).body == b"abcdefg"


def test_a_request_says_who_asks_and_for_what(web: Web) -> None:
    fetch_one(web.serve("/p?q=1", answer(b"x")), user_agent="Tester (me@example.org)")
    head = web.heads["/p?q=1"]
    assert "User-Agent: Tester (me@example.org)\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "Cookie" not in head
    assert "Pairmill" in FetchPolicy().user_agent


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("404 Not Found", "http_404"),
        ("410 Gone", "http_410"),
        ("403 Forbidden", "http_4xx"),
        ("451 Unavailable", "http_4xx"),
        ("408 Timeout", "http_408"),
        ("429 Slow Down", "http_429"),
        ("500 Oops", "http_5xx"),
        ("520 Odd", "http_5xx"),
        ("999 Denied", "http_other"),
        ("300 Choose", "http_other"),
        ("304 Not Modified", "http_other"),
        ("206 Partial", "broken_answer"),
        ("204 No Content", "empty"),
    ],
)
def test_an_http_status_that_brings_no_picture_has_its_class(web: Web, status: str, expected: str) -> None:
    result = fetch_one(web.serve("/", answer(b"" if "204" in status or "304" in status else b"page" * 10_000, status)))
    assert (result.status, result.http_status) == (expected, int(status[:3]))
    assert status[:3] in result.error


def test_a_failure_that_may_pass_is_tried_again(web: Web) -> None:
    busy, ok = answer(b"busy", "503 Busy"), answer(b"here")
    result = fetch_one(web.serve("/", busy, reset, ok), retries=2)
    assert (result.status, result.attempts, web.asked["/"]) == ("ok", 3, 3)


def test_retries_end(web: Web) -> None:
    result = fetch_one(web.serve("/", answer(b"", "503 Busy")), retries=2)
    assert (result.status, result.attempts, web.asked["/"]) == ("http_5xx", 3, 3)


@pytest.mark.parametrize("page", [answer(b"", "404 No"), answer(b""), answer(b"x", "200 OK", "Content-Encoding: gzip")])
def test_a_final_failure_is_not_tried_again(web: Web, page: bytes) -> None:
    assert fetch_one(web.serve("/", page), retries=2).attempts == web.asked["/"] == 1


def test_retry_after_is_waited_for(web: Web) -> None:
    url = web.serve("/", answer(b"", "429 Slow Down", "Retry-After: 1"), answer(b"here"))
    before = time.monotonic()
    assert fetch_one(url, retries=1).status == "ok"
    assert time.monotonic() - before >= 1


@pytest.mark.parametrize("asked", ["1000000000", email.utils.format_datetime(datetime.datetime(2999, 1, 1))])
def test_a_server_that_asks_for_too_long_a_pause_is_left_alone(web: Web, asked: str) -> None:
    result = fetch_one(web.serve("/", answer(b"", "429 Slow Down", f"Retry-After: {asked}")), retries=2)
    assert (result.status, web.asked["/"]) == ("http_429", 1)


@pytest.mark.parametrize("page", [silent, dripping], ids=["silent", "dripping"])
def test_the_deadline_holds_for_the_whole_answer(web: Web, page: object) -> None:
    before = time.monotonic()
    assert fetch_one(web.serve("/", page), timeout_s=0.4).status == "timeout"
    assert 0.35 < time.monotonic() - before < 5


def test_the_deadline_holds_over_redirects(web: Web) -> None:
    def late(connection: object, _web: Web) -> None:
        time.sleep(1.4)
        connection.sendall(redirect("/silent"))  # type: ignore[attr-defined]

    web.serve("/silent", silent)
    result = fetch_one(web.serve("/", late), timeout_s=2)
    assert (result.status, result.redirects) == ("timeout", 1)
    assert result.seconds < 2.5


def test_an_answer_that_drips_is_given_up_long_before_the_deadline(web: Web) -> None:
    assert fetch_one(web.serve("/", dripping), timeout_s=30, slow_s=1).status == "too_slow"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (answer(b"half", length=8), "broken_answer"),
        (reset, "connect"),
        (answer(b""), "empty"),
        (b"", "connect"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\nabc", "broken_answer"),
        (endless_headers, "broken_answer"),
        (answer(b"x" * 2000), "too_large"),
        (answer(b"", length=10**12), "too_large"),
        (endless, "too_large"),
        *[(answer(b"x", "200 OK", f"Content-Encoding: {e}"), "encoded") for e in ("gzip", "br", "zstd", "gzip, gzip")],
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "encoded"),
    ],
)
def test_a_bad_answer_has_its_class(web: Web, page: object, expected: str) -> None:
    result = fetch_one(web.serve("/", page), max_bytes=1000)
    assert result.status == expected, result.error
    assert result.error


def test_redirects_are_followed(web: Web) -> None:
    web.serve("/b/c?d=e f", answer(b"never"))
    web.serve("/b/c?d=e%20f", redirect(web.url("/end")))
    web.serve("/end", answer(b"here"))
    result = fetch_one(web.serve("/a", redirect("b/c?d=e f#part")))
    assert (result.body, result.redirects, result.http_status) == (b"here", 2, 200)


def test_a_retry_begins_anew_at_the_first_url(web: Web) -> None:
    web.serve("/b", answer(b"", "503 Busy"), answer(b"here"))
    result = fetch_one(web.serve("/a", redirect("/b")), retries=1, most_redirects=1)
    assert (result.body, result.redirects, result.attempts) == (b"here", 1, 2)
    assert web.asked == {"/a": 2, "/b": 2}


def test_redirects_end(web: Web) -> None:
    result = fetch_one(web.serve("/", redirect("/")), retries=2)
    assert (result.status, web.asked["/"]) == ("redirects", 6)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://127.0.0.2:{port}/secret", "unsafe_address"),
        ("http://localhost.:{port}@127.0.0.2/secret", "unsafe_url"),
        ("http://[::1]:{port}/secret", "unsafe_address"),
        ("http://169.254.169.254/latest/meta-data/", "unsafe_address"),
        ("file:///etc/passwd", "unsafe_url"),
        ("ftp://127.0.0.1/secret", "unsafe_url"),
        ("javascript:alert(1)", "unsafe_url"),
        ("http://", "bad_url"),
        ("http://[::1", "bad_url"),
        ("/" + "x" * 3000, "redirects"),
    ],
)
def test_a_redirect_passes_the_same_checks_as_a_url(web: Web, location: str, expected: str) -> None:
    canary = Web("127.0.0.2", web.port)
    canary.serve("/secret", answer(b"secret"))
    try:
        result = fetch_one(web.serve("/", redirect(location.format(port=web.port))), retries=2)
        assert (result.status, result.http_status) in [(expected, 302), (expected, None)], result.error
        assert not canary.asked
    finally:
        canary.close()


LOCAL_FORMS = (
    "127.0.0.1 127.1 2130706433 0x7f.0.0.1 017700000001 １２７.0.0.1 ①②⑦.⓪.⓪.① 127。0。0。1".split()  # noqa: SIM905
)
OTHER_FORMS = (
    "[::ffff:127.0.0.1] [::1] [64:ff9b::7f00:1] [2002:7f00:1::] [::127.0.0.1] 0.0.0.0 localhost".split()  # noqa: SIM905
)


def test_no_way_of_writing_this_machine_reaches_it(web: Web) -> None:
    web.serve("/", answer(b"secret"))
    results = fetch_all(*(web.url("/", host) for host in LOCAL_FORMS + OTHER_FORMS), allow_networks=("192.0.2.0/24",))
    assert [result.status for result in results[: len(LOCAL_FORMS)]] == ["unsafe_address"] * len(LOCAL_FORMS)
    assert {result.status for result in results[len(LOCAL_FORMS) :]} <= {"unsafe_address", "connect"}
    assert not web.asked


def test_a_named_network_is_reached_in_any_form(web: Web) -> None:
    web.serve("/", answer(b"here"))
    results = fetch_all(*(web.url("/", host) for host in [*LOCAL_FORMS, "localhost"]))
    assert {result.status for result in results} == {"ok"}


def test_without_named_networks_only_web_ports_are_connected_to(web: Web) -> None:
    results = fetch_all("http://example.com:22/", web.url("/"), "http://127.0.0.1/", allow_networks=())
    assert [result.status for result in results] == ["unsafe_port", "unsafe_port", "unsafe_address"]
    assert not web.asked


def test_proxies_of_the_environment_are_ignored(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Web()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(""))
    assert fetch_one(web.serve("/", answer(b"here"))).body == b"here"
    assert not proxy.asked
    proxy.close()


SPECIAL_ADDRESSES = """
0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1 nonsense 1.2.3 /var/run/docker.sock
"""
PUBLIC_ADDRESSES = "1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 100.128.0.1 2606:4700::1111"


@pytest.mark.parametrize("address", SPECIAL_ADDRESSES.split())
def test_special_addresses_are_denied(address: str) -> None:
    assert denied(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES.split())
def test_public_addresses_are_not_denied(address: str) -> None:
    assert denied(address) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        (" https://example.com:443/a b?q=ä#frag ", "https://example.com/a%20b?q=%C3%A4"),
        ("http://example.com:8080?q", "http://example.com:8080/?q"),
        ("http://bücher.example/%20", "http://xn--bcher-kva.example/%20"),
        ("http://[2606:4700:0::1]:80/", "http://[2606:4700::1]/"),
        ("http://example.com./x", "http://example.com./x"),
        ("http://example.com:/x\\y", "http://example.com/x%5Cy"),
    ],
)
def test_a_url_is_read_once_and_written_plainly(url: str, expected: str) -> None:
    assert parse_url(url).url == expected
    assert parse_url(expected).url == expected


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("example.com/a.jpg", "bad_url"),
        ("//example.com/a.jpg", "bad_url"),
        ("http:example.com", "bad_url"),
        ("http:///a.jpg", "bad_url"),
        ("http://good.com\\@127.0.0.1/", "unsafe_url"),
        ("http://good.com\\.example/", "bad_url"),
        ("http://good.com\t@127.0.0.1/", "bad_url"),
        ("http://good.com:80:22/", "bad_url"),
        ("http://good.com:99999/", "bad_url"),
        ("http://good.com:0/", "bad_url"),
        ("http://good.com:８０/", "bad_url"),
        ("http://a b/", "bad_url"),
        ("http://%31%32%37.0.0.1/", "bad_url"),
        ("http://[fe80::1%25eth0]/", "bad_url"),
        ("http://[1.2.3.4]/", "bad_url"),
        ("http://" + "a" * 300 + ".com/", "bad_url"),
        ("http://ok.com/" + "x" * 9000, "bad_url"),
        ("http://ok.com/\ud800", "bad_url"),
        ("http://ok.com/\x00", "bad_url"),
        ("http://user@ok.com/", "unsafe_url"),
        ("http://user:secret@ok.com/", "unsafe_url"),
        ("file:///etc/passwd", "unsafe_url"),
        ("data:image/png;base64,xxxx", "unsafe_url"),
        ("gopher://ok.com/", "unsafe_url"),
    ],
)
def test_an_odd_url_is_refused(url: str, status: str) -> None:
    with pytest.raises(UrlError) as caught:
        parse_url(url)
    assert caught.value.status == status


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    web = Web(tls=context)
    url = web.serve("/", answer(b"here"))
    assert fetch_one(url, retries=2).status == "tls"
    assert not web.asked
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert fetch_one(url).body == b"here"
    assert fetch_one(web.url("/", "localhost")).status == "tls"
    web.close()


def test_a_machine_without_certificates_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: ssl.DefaultVerifyPaths(*[None] * 6))
    assert certificates().endswith("cacert.pem")
    monkeypatch.setitem(__import__("sys").modules, "certifi", None)
    with pytest.raises(RunError, match="ca-certificates"):
        certificates()


def test_hundreds_of_requests_each_get_their_own_result(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(b"%d" % i)) for i in range(300)]
    descriptors = open_descriptors()
    assert [result.body for result in fetch_all(*urls)] == [b"%d" % i for i in range(300)]
    assert becomes(lambda: open_descriptors() <= descriptors)


def test_the_network_goes_on_while_the_consumer_works_but_not_without_bound(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(b"x")) for i in range(200)]
    drawn_by: set[int] = set()

    def requests() -> Iterator[Request]:
        for row, url in enumerate(urls):
            drawn_by.add(threading.get_ident())
            yield Request(row, url)

    results = fetch(requests(), FetchPolicy(**{**vars(POLICY), "concurrency": 5}), HostPolicy())
    next(results)
    assert becomes(lambda: sum(web.asked.values()) == 20)
    time.sleep(0.1)
    assert sum(web.asked.values()) == 20
    assert len(list(results)) == 199
    assert drawn_by == {threading.get_ident()}


def test_no_transfer_starts_while_too_many_bytes_wait(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(bytes(10_000))) for i in range(40)]
    policy = FetchPolicy(**{**vars(POLICY), "concurrency": 2, "buffer_bytes": 15_000})
    results = fetch(map(Request, range(40), urls), policy, HostPolicy())
    next(results)
    time.sleep(0.3)
    assert sum(web.asked.values()) <= 5
    assert len(list(results)) == 39


def test_an_abandoned_fetch_leaves_nothing_behind(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(b"x") if i == 0 else silent) for i in range(20)]
    descriptors = open_descriptors()
    results = fetch(map(Request, range(20), urls), POLICY, HostPolicy())
    assert next(results).row == 0
    before = time.monotonic()
    results.close()
    assert time.monotonic() - before < 3
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]
    web.close()
    assert becomes(lambda: open_descriptors() <= descriptors)


def test_a_source_of_requests_that_raises_ends_the_fetch(web: Web) -> None:
    def requests() -> Iterator[Request]:
        yield Request(0, web.serve("/", silent))
        raise KeyError("broken source")

    with pytest.raises(KeyError, match="broken source"):
        list(fetch(requests(), POLICY, HostPolicy()))
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_a_host_gets_few_requests_at_once_until_its_network_is_known_to_be_named(web: Web) -> None:
    release = threading.Event()

    def held(connection: object, _web: Web) -> None:
        release.wait(5)
        time.sleep(0.2)
        connection.sendall(answer(b"x"))  # type: ignore[attr-defined]

    urls = [web.serve(f"/{i}", held).replace("127.0.0.1", "localhost") for i in range(30)]
    results = fetch(map(Request, range(30), urls), POLICY, HostPolicy(HostLimits(places=2)))
    seen: list[int] = []

    def look_then_release() -> None:
        becomes(lambda: web.most_running >= 2)
        time.sleep(0.2)
        seen.append(web.most_running)
        release.set()

    threading.Thread(target=look_then_release).start()
    assert {result.status for result in results} == {"ok"}
    assert seen == [2]
    assert web.most_running > 2


def test_what_is_tried_again_at_once_may_pass_later_too() -> None:
    assert RETRIED < PASSING
    assert not PASSING & {"ok", "http_404", "http_410", "http_4xx", "too_large", "bad_url", "unsafe_url", "empty"}
