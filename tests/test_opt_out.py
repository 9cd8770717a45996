"""Who opts out, by X-Robots-Tag or the TDM Reservation Protocol, is left out, with an outcome of its own."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import Web, answer

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.hosts.opt_out import TdmRules, robots_tag_refusal, tdm_reserved
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import PASSING, Fetched, Request
from curation.fetch.policy import FetchPolicy

POLICY = FetchPolicy(timeout_s=2, retries=0, backoff_s=0.01, allow_networks=("127.0.0.0/8",))
TDMREP = "/.well-known/tdmrep.json"


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def fetch_all(*urls: str, **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    return sorted(fetch(map(Request, range(len(urls)), urls), policy, HostPolicy()), key=lambda result: result.row)


@pytest.mark.parametrize(
    ("headers", "directive"),
    [
        (["noai"], "noai"),
        (["all, NoImageAI"], "noimageai"),
        (["noindex"], "noindex"),
        (["noimageindex,nofollow"], "noimageindex"),
        (["none"], "none"),
        (["all"], ""),
        (["nofollow, noarchive, nosnippet"], ""),
        (["noaim, noindexes, xnoai"], ""),
        ([""], ""),
        (["googlebot: noai"], ""),
        (["googlebot: noai, noindex"], ""),
        (["googlebot: noai", "noimageai"], "noimageai"),
        (["pairmill: noai"], "noai"),
        (["PairMill :noai"], "noai"),
        (["*: noai"], "noai"),
        (["googlebot: all, pairmill: noindex"], "noindex"),
        (["pairmill: all, googlebot: noindex"], ""),
        (["unavailable_after: 25 Jun 2027 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Fri, 25 Jun 2027 15:00:00 PST"], ""),
        (["max-snippet: 5, max-image-preview: none, noai"], "noai"),
        (["max-image-preview: none"], ""),
        (["otherbot: unavailable_after: 25 Jun 2027 15:00:00 PST, noai"], ""),
    ],
)
def test_an_x_robots_tag_keeps_out_whom_it_names(headers: list[str], directive: str) -> None:
    assert robots_tag_refusal(headers, "pairmill") == directive


@given(st.lists(st.text()), st.text())
def test_no_x_robots_tag_raises(headers: list[str], token: str) -> None:
    assert isinstance(robots_tag_refusal(headers, token), str)


@given(st.lists(st.sampled_from(["noai", "noindex", "all", "bot:", "pairmill:", ",", ":", " ", "max-snippet: 1"])))
def test_no_mixture_of_directives_raises(pieces: list[str]) -> None:
    assert isinstance(robots_tag_refusal([" ".join(pieces)], "pairmill"), str)


@pytest.mark.parametrize(("header", "reserved"), [("1", True), (" 1 ", True), ('"1"', True), ("0", False), ("", False)])
def test_a_tdm_header_reserves_with_a_one(header: str, reserved: bool) -> None:
    assert tdm_reserved(header) is reserved
    assert not tdm_reserved(None)


def reserved(rules: object, path: str) -> bool:
    return TdmRules(rules if isinstance(rules, str) else json.dumps(rules)).reserve(f"http://example.com{path}")


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ([{"location": "/", "tdm-reservation": 1}], "/a.jpg", True),
        ([{"location": "*", "tdm-reservation": 1}], "/a.jpg", True),
        ([{"location": "/pictures/", "tdm-reservation": 1}], "/a.jpg", False),
        ([{"location": "/*.jpg$", "tdm-reservation": 1, "tdm-policy": "http://x"}], "/b/a.jpg", True),
        ([{"location": "/", "tdm-reservation": 1}, {"location": "/free/", "tdm-reservation": 0}], "/free/a", False),
        ([{"location": "/", "tdm-reservation": 0}, {"location": "/mine/", "tdm-reservation": 1}], "/mine/a", True),
        ({"location": "/", "tdm-reservation": "1"}, "/a", True),
        ([{"location": "pictures", "tdm-reservation": 1}], "/pictures/a", True),
        ([{"location": "/", "tdm-reservation": 2}], "/a", False),
        ([{"location": "/", "tdm-reservation": True}], "/a", True),
        ([{"location": "/\nUser-agent: *\nAllow: /", "tdm-reservation": 1}, 5, None, []], "/a", False),
        ([{"tdm-reservation": 1}], "/a", False),
        ([], "/a", False),
        ("<html>no such page</html>", "/a", False),
        ("[" * 100_000, "/a", False),
        ("", "/a", False),
    ],
)
def test_a_tdmrep_file_reserves_what_its_longest_matching_rule_says(rules: object, path: str, expected: bool) -> None:
    assert reserved(rules, path) is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["location", "tdm-reservation", "x"]), inner),
)


@given(JSON | st.text())
def test_no_tdmrep_file_raises(rules: object) -> None:
    assert reserved(rules, "/a/b?c") in (True, False)


def test_a_picture_whose_headers_opt_out_is_not_taken(web: Web) -> None:
    urls = [
        web.serve("/noai", answer(b"x", "200 OK", "X-Robots-Tag: googlebot: all", "x-robots-tag: noai")),
        web.serve("/other", answer(b"x", "200 OK", "X-Robots-Tag: googlebot: noai")),
        web.serve("/tdm", answer(b"x", "200 OK", "TDM-Reservation: 1", "TDM-Policy: https://example.com")),
        web.serve("/free", answer(b"x", "200 OK", "TDM-Reservation: 0")),
        web.serve("/gone", answer(b"x", "404 Not Found", "X-Robots-Tag: noai")),
    ]
    results = fetch_all(*urls, retries=2)
    assert [result.status for result in results] == ["opt_out_header", "ok", "tdm_reserved", "ok", "http_404"]
    assert [result.http_status for result in results] == [200, 200, 200, 200, 404]
    assert set(web.asked.values()) == {1}
    assert not PASSING & {"opt_out_header", "tdm_reserved", "robots_disallowed", "blocked_domain", "blocked_hash"}


def test_opt_outs_can_be_told_to_be_ignored(web: Web) -> None:
    web.serve(TDMREP, answer(b'[{"location": "/", "tdm-reservation": 1}]'))
    url = web.serve("/a", answer(b"x", "200 OK", "X-Robots-Tag: noai"))
    assert fetch_all(url, opt_out=False)[0].status == "ok"
    assert web.asked_first == {"/robots.txt": 1}


def test_a_sites_tdmrep_file_is_asked_for_once(web: Web) -> None:
    web.serve(TDMREP, answer(b'[{"location": "/mine/", "tdm-reservation": 1}]'))
    urls = [web.serve(path, answer(b"x")) for path in ("/a", "/mine/b", "/mine/c", "/d")]
    assert [result.status for result in fetch_all(*urls)] == ["ok", "tdm_reserved", "tdm_reserved", "ok"]
    assert web.asked_first == {"/robots.txt": 1, TDMREP: 1}
    assert web.asked == {"/a": 1, "/d": 1}
    assert fetch_all(urls[1], robots=False)[0].status == "tdm_reserved"


@pytest.mark.parametrize("page", [answer(b"", "500 Oops"), answer(b"<html>"), answer(b"", "404 No"), b"nonsense"])
def test_a_tdmrep_file_that_cannot_be_had_reserves_nothing(web: Web, page: bytes) -> None:
    web.serve(TDMREP, page)
    assert fetch_all(web.serve("/a", answer(b"x")))[0].status == "ok"
