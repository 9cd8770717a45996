"""robots.txt: read as RFC 9309 says, asked once per site, kept in the store, and heeded before any picture."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import Web, answer, redirect, reset, silent

from curation.fetch.hosts.host_policy import HostPolicy
from curation.fetch.hosts.robots import Robots, product_token
from curation.fetch.hosts.site_book import FETCH, WAIT, SiteAnswers, SiteBook
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import PASSING, RETRIED, Fetched, Request
from curation.fetch.policy import FetchPolicy
from curation.prune import prune
from curation.storage.store import Store

POLICY = FetchPolicy(timeout_s=2, retries=0, backoff_s=0.01, opt_out=False, allow_networks=("127.0.0.0/8",))
FORBIDS_ALL = answer(b"User-agent: *\nDisallow: /\n")


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def fetch_all(*urls: str, hosts: HostPolicy | None = None, **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    results = fetch(map(Request, range(len(urls)), urls), policy, hosts or HostPolicy())
    return sorted(results, key=lambda result: result.row)


def allows(text: str, path: str, token: str = "pairmill") -> bool:
    return Robots(text, token).allows(f"http://example.com{path}")


ALL = "User-agent: *\n"


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/a", True),
        (ALL + "Disallow: /", "/a", False),
        (ALL + "Disallow:", "/a", True),
        (ALL + "Disallow: /a", "/A", True),
        (ALL + "Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/disallowed.gif", False),
        (ALL + "Allow: /example/page/\nDisallow: /example/", "/example/page/x", True),
        (ALL + "Disallow: /page\nAllow: /page", "/page", True),
        (ALL + "Disallow: /*.gif$", "/a/b.gif", False),
        (ALL + "Disallow: /*.gif$", "/a/b.gif?x", True),
        (ALL + "Disallow: /*/b*/d", "/a/bc/d", False),
        (ALL + "Disallow: /foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", False),
        (ALL + "Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False),
        (ALL + "Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        (ALL + "Disallow: /a%2Fb", "/a/b", True),
        (ALL + "Disallow: /a?b=1", "/a?b=12", False),
        (ALL + "Disallow: /", "/robots.txt", True),
        ("user-AGENT : PairMill # us\ndisALLOW : /a # that", "/a", False),
        ("User-agent: pairmill\nDisallow: /a\n\n" + ALL + "Disallow: /b", "/a", False),
        ("User-agent: pairmill\nDisallow: /a\n\n" + ALL + "Disallow: /b", "/b", True),
        ("User-agent: pairmill\nDisallow: /a\n\nUser-agent: Pairmill\nDisallow: /b", "/b", False),
        ("User-agent: other\nUser-agent: pairmill\n\nDisallow: /a", "/a", False),
        ("User-agent: other\nSitemap: x\nUser-agent: pairmill\nDisallow: /a", "/a", False),
        ("User-agent: Pairmill/1.0\nDisallow: /a", "/a", False),
        ("User-agent: pair\nDisallow: /a", "/a", True),
        ("User-agent: mill\nDisallow: /a", "/a", True),
        ("User-agent: pairmillbot\nDisallow: /a", "/a", True),
        ("\ufeffUser-agent: *\r\nDisallow: /a\r\n", "/a", False),
        ("User-agent: *\rAllow: /\r\rUser-agent: pairmill\rDisallow: /a\r", "/a", False),
        ("Disallow: /a", "/a", True),
        ("<html><body>not found</body></html>", "/a", True),
    ],
)
def test_robots_is_read_as_the_rfc_says(text: str, path: str, allowed: bool) -> None:
    assert allows(text, path) is allowed


@given(st.text(), st.text(st.characters(codec="ascii")), st.text())
def test_no_robots_file_raises(text: str, path: str, token: str) -> None:
    assert allows(text, f"/{path}", token) in (True, False)


LINES = st.sampled_from(
    [
        "User-agent: *",
        "User-agent: pairmill",
        "Disallow: /",
        "Allow: /a*b$",
        "Disallow: /%",
        "Crawl-delay: x",
        "\x00",
        ":",
    ]
)


@given(st.lists(LINES, max_size=20), st.sampled_from(["/", "/ab", "/%zz", "/%", "/a?b"]))
def test_no_mixture_of_lines_raises(lines: list[str], path: str) -> None:
    assert allows("\n".join(lines), path) in (True, False)


def test_a_pattern_of_many_stars_costs_no_time() -> None:
    before = time.monotonic()
    assert allows(ALL + "Disallow: /" + "*a" * 200 + "*b$", "/" + "ab" * 2000 + "c")
    assert time.monotonic() - before < 1


def test_we_are_addressed_by_our_product() -> None:
    assert product_token("Pairmill/0.1 (contact)") == product_token(FetchPolicy().user_agent) == "pairmill"
    assert product_token("My-Crawler (me@example.org)") == "my-crawler"
    assert product_token("  ") == product_token("007") == ""


def test_what_robots_forbids_is_not_asked_for(web: Web) -> None:
    web.serve("/robots.txt", answer(ALL.encode() + b"Disallow: /private/\n"))
    urls = [web.serve(path, answer(b"x")) for path in ("/a", "/private/b", "/c")]
    results = fetch_all(*urls)
    assert [result.status for result in results] == ["ok", "robots_disallowed", "ok"]
    assert results[1].attempts == 0
    assert web.asked == {"/a": 1, "/c": 1}
    assert web.asked_first == {"/robots.txt": 1}


def test_robots_can_be_told_to_be_ignored(web: Web) -> None:
    web.serve("/robots.txt", FORBIDS_ALL)
    assert fetch_all(web.serve("/a", answer(b"x")), robots=False)[0].status == "ok"
    assert not web.asked_first


def test_a_site_is_asked_once_for_all_fetches_that_share_a_host_policy(web: Web) -> None:
    urls = [web.serve(f"/{i}", answer(b"x")) for i in range(40)]
    hosts = HostPolicy()
    for _ in range(2):
        assert {result.status for result in fetch_all(*urls, hosts=hosts)} == {"ok"}
    assert web.asked_first == {"/robots.txt": 1}


def test_every_site_of_a_host_has_its_own_robots(web: Web) -> None:
    other = Web()
    other.serve("/robots.txt", FORBIDS_ALL)
    results = fetch_all(web.serve("/a", answer(b"x")), other.serve("/a", answer(b"x")))
    other.close()
    assert [result.status for result in results] == ["ok", "robots_disallowed"]


def test_a_redirect_obeys_the_robots_of_where_it_leads(web: Web) -> None:
    other = Web()
    other.serve("/robots.txt", FORBIDS_ALL)
    result = fetch_all(web.serve("/a", redirect(other.serve("/b", answer(b"x")))))[0]
    other.close()
    assert (result.status, result.redirects) == ("robots_disallowed", 1)
    assert not other.asked


@pytest.mark.parametrize(
    "status", ["400 Bad", "401 Who", "403 No", "404 Not Found", "410 Gone", "418 Teapot", "451 Law"]
)
def test_a_robots_file_that_is_not_there_allows_all(web: Web, status: str) -> None:
    web.serve("/robots.txt", answer(b"User-agent: *\nDisallow: /", status))
    assert fetch_all(web.serve("/a", answer(b"x")))[0].status == "ok"


@pytest.mark.parametrize(
    "page",
    [
        answer(b"", "500 Oops"),
        answer(b"", "503 Busy"),
        answer(b"", "429 Slow down"),
        answer(b"", "304 Not Modified"),
        answer(b"User-agent", length=100),
        redirect("http://10.0.0.1/robots.txt"),
        redirect("file:///etc/passwd"),
    ],
)
def test_a_robots_file_that_cannot_be_had_forbids_all_for_now(web: Web, page: bytes) -> None:
    web.serve("/robots.txt", page)
    hosts = HostPolicy()
    for _ in range(2):
        result = fetch_all(web.serve("/a", answer(b"x")), hosts=hosts)[0]
        assert result.status == "robots_unreachable"
        assert "robots.txt" in result.error
    assert not web.asked
    assert "robots_unreachable" in PASSING - RETRIED
    assert "robots_disallowed" not in PASSING


@pytest.mark.parametrize(("page", "status"), [(reset, "connect"), (silent, "timeout")])
def test_a_host_that_does_not_answer_fails_as_such(web: Web, page: object, status: str) -> None:
    web.serve("/robots.txt", page)  # type: ignore[arg-type]
    results = fetch_all(*(web.serve(f"/{i}", answer(b"x")) for i in range(3)), timeout_s=0.3)
    assert {result.status for result in results} == {status}
    assert not web.asked


def test_robots_is_tried_again_as_pictures_are(web: Web) -> None:
    web.serve("/robots.txt", answer(b"", "503 Busy"), reset, FORBIDS_ALL)
    assert fetch_all(web.serve("/a", answer(b"x")), retries=2)[0].status == "robots_disallowed"


def test_redirects_of_robots_are_followed_but_not_for_ever(web: Web) -> None:
    other = Web()
    web.serve("/robots.txt", redirect(other.serve("/elsewhere", FORBIDS_ALL)))
    assert fetch_all(web.serve("/a", answer(b"x")))[0].status == "robots_disallowed"
    assert not other.asked_first
    other.serve("/robots.txt", redirect("/robots.txt"))
    assert fetch_all(other.serve("/a", answer(b"x")))[0].status == "ok"
    other.close()


def test_only_the_beginning_of_a_long_robots_file_is_read(web: Web) -> None:
    padding = b"# padding\n" * 100_000
    web.serve("/robots.txt", answer(ALL.encode() + b"Disallow: /a\n" + padding + b"Disallow: /b\n"))
    urls = [web.serve(path, answer(b"x")) for path in ("/a", "/b")]
    assert [result.status for result in fetch_all(*urls, max_bytes=1000)] == ["robots_disallowed", "ok"]


def test_requests_that_wait_for_robots_hit_the_deadline_too(web: Web) -> None:
    web.serve("/robots.txt", silent)
    results = fetch_all(web.url("/a"), web.url("/b"), timeout_s=5, part_deadline_s=0.3)
    assert [result.status for result in results] == ["deadline", "deadline"]


SITE = "http://example.com"
MOMENT = 1_000_000.0


def test_a_book_says_who_is_to_fetch_and_forgets_after_a_day() -> None:
    now = [MOMENT]
    book = SiteBook(clock=lambda: now[0])
    assert [book.ask(SITE, ("robots",), who) for who in (1, 2, 1)] == [FETCH, WAIT, FETCH]
    now[0] += 200  # whoever was to fetch has died
    assert book.ask(SITE, ("robots",), 2) == FETCH
    book.tell(SITE, None)
    assert book.ask(SITE, ("robots",), 3) == FETCH
    answers = SiteAnswers(SITE, now[0], "rules", 200)
    book.tell(SITE, answers)
    assert book.ask(SITE, ("robots",), 1) == answers
    assert book.ask(SITE, ("robots", "tdmrep"), 1) == FETCH
    now[0] += 24 * 3600
    assert book.ask(SITE, ("robots",), 1) == FETCH


def test_answers_are_kept_in_the_store_for_the_next_run(web: Web, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    web.serve("/robots.txt", FORBIDS_ALL)
    for _ in range(2):
        hosts = HostPolicy(sites=SiteBook(store))
        assert fetch_all(web.serve("/a", answer(b"x")), hosts=hosts)[0].status == "robots_disallowed"
    assert web.asked_first == {"/robots.txt": 1}


def test_two_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    books = [SiteBook(store, lambda: MOMENT) for _ in range(3)]
    for i, book in enumerate(books):
        book.tell(f"{SITE}:{i}", SiteAnswers(f"{SITE}:{i}", MOMENT, f"rules {i}", 200))
    for book in books:
        book.write()
        book.write()
    found = SiteBook(store, lambda: MOMENT + 3600 * 23.9)
    answers = [found.ask(f"{SITE}:{i}", ("robots",)) for i in range(3)]
    assert [answer.robots for answer in answers if isinstance(answer, SiteAnswers)] == ["rules 0", "rules 1", "rules 2"]
    assert SiteBook(store, lambda: MOMENT + 3600 * 49).ask(f"{SITE}:0", ("robots",)) == FETCH


def test_what_sites_said_outlives_a_prune(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    book = SiteBook(store, lambda: MOMENT)
    book.tell(SITE, SiteAnswers(SITE, MOMENT, "rules", 200))
    book.write()
    prune(tmp_path, remove=True, grace_s=0)
    assert SiteBook(store, lambda: MOMENT).ask(SITE, ("robots",)) == SiteAnswers(SITE, MOMENT, "rules", 200)
