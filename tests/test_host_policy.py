"""How hosts are treated: limits per registered domain, pauses, the circuit breaker, and the time a part has."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import Web, answer, reset, silent

from curation.fetch.hosts.domains import registered_domain
from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.http import names
from curation.fetch.http.engine import fetch
from curation.fetch.http.names import RESOLVED, Names, look_up
from curation.fetch.outcomes import DNS, NO_SUCH_HOST, Fetched, Request
from curation.fetch.policy import FetchPolicy
from schemas.errors import RunError

INFINITY = float("inf")
POLICY = FetchPolicy(
    timeout_s=5, retries=0, backoff_s=0.01, robots=False, opt_out=False, allow_networks=("127.0.0.0/8",)
)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


def fetch_all(*urls: str, hosts: HostPolicy | None = None, **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    results = fetch(map(Request, range(len(urls)), urls), policy, hosts or HostPolicy())
    return sorted(results, key=lambda result: result.row)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("img1.example.com", "example.com"),
        ("example.com.", "example.com"),
        ("a.b.co.uk", "b.co.uk"),
        ("one.blogspot.com", "one.blogspot.com"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.1"),
        ("2606:4700::1", "2606:4700::1"),
        ("a.xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_limits_hold_for_the_registered_domain(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


@given(st.text())
def test_any_text_has_a_domain(host: str) -> None:
    assert isinstance(registered_domain(host), str)


def test_a_domain_is_given_its_places_back() -> None:
    hosts = HostPolicy(HostLimits(places=2))
    asked = ["a.x.com", "b.x.com", "x.com", "y.com"]
    assert [hosts.admit(host) for host in asked] == [0, 0, INFINITY, 0]
    hosts.done("b.x.com", "ok", 200)
    assert hosts.admit("c.x.com") == 0
    assert [hosts.admit("x.com", limited=False) for _ in range(5)] == [0] * 5


def test_the_rate_spaces_requests_out() -> None:
    clock = Clock()
    hosts = HostPolicy(HostLimits(places=100, per_s=4), clock)
    started = 0
    for _ in range(1000):
        while hosts.admit("x.com") == 0:
            started += 1
            hosts.done("x.com", "ok", 200)
        clock.now += 0.01
    assert 40 <= started <= 41


@pytest.mark.parametrize("http_status", [429, 503])
def test_a_domain_that_asks_for_a_pause_gets_it(http_status: int) -> None:
    clock = Clock()
    hosts = HostPolicy(clock=clock)
    assert hosts.admit("x.com") == 0
    hosts.done("x.com", "any", http_status, 20)
    assert hosts.admit("www.x.com") == 20
    assert hosts.admit("y.com") == 0
    clock.now += 20
    assert hosts.admit("x.com") == 0


def test_who_names_no_pause_gets_one_that_doubles_until_it_answers_well() -> None:
    clock = Clock()
    hosts = HostPolicy(clock=clock)
    for least in (0.5, 1, 2, 4, 8):
        assert hosts.admit("x.com") == 0
        hosts.done("x.com", "http_429", 429)
        assert least <= hosts.admit("x.com") <= 2 * least
        clock.now += 2 * least
    hosts.admit("x.com")
    hosts.done("x.com", "ok", 200)
    assert hosts.admit("x.com") == 0
    hosts.done("x.com", "http_429", 429)
    assert hosts.admit("x.com") <= 1


def test_a_busy_page_does_not_make_its_whole_domain_wait() -> None:
    hosts = HostPolicy(clock=Clock())
    for expected in (0, 0, 1):
        assert hosts.admit("x.com") == 0
        hosts.done("x.com", "http_5xx", 503)
        wait_s = hosts.admit("x.com")
        assert (wait_s > 0) == expected
        if not wait_s:
            hosts.done("x.com", "broken_answer")


def test_who_asks_for_a_long_pause_is_not_asked_again_meanwhile() -> None:
    clock = Clock()
    hosts = HostPolicy(clock=clock)
    hosts.admit("x.com")
    hosts.done("x.com", "http_429", 429, 300)
    assert "asked for a pause of 300 s" in hosts.refusal("x.com")
    clock.now += 300
    assert hosts.refusal("x.com") == ""


def down(hosts: HostPolicy, times: int, host: str = "x.com") -> None:
    for _ in range(times):
        assert hosts.admit(host) == 0
        hosts.done(host, "timeout")


def test_a_domain_without_answers_is_down_until_a_probe_gets_one() -> None:
    clock = Clock()
    hosts = HostPolicy(HostLimits(failures=3, down_s=10), clock)
    down(hosts, 2)
    assert not hosts.refusal("x.com")
    down(hosts, 1)
    assert "gave no answer 3 times" in hosts.refusal("www.x.com")
    clock.now += 10
    assert hosts.refusal("x.com") == ""
    assert [hosts.admit("x.com"), hosts.admit("x.com")] == [0, INFINITY]
    hosts.done("x.com", "connect")
    assert hosts.refusal("x.com")
    clock.now += 19
    assert hosts.refusal("x.com")
    clock.now += 1
    assert hosts.admit("x.com") == 0
    hosts.done("x.com", "http_404", 404)
    assert [hosts.admit("x.com"), hosts.admit("x.com")] == [0, 0]


def test_a_domain_that_has_answered_is_given_more_patience() -> None:
    hosts = HostPolicy(HostLimits(failures=2, heard_factor=3))
    hosts.admit("x.com")
    hosts.done("x.com", "ok", 200)
    down(hosts, 5)
    assert not hosts.refusal("x.com")
    down(hosts, 1)
    assert hosts.refusal("x.com")


def test_other_failures_do_not_open_the_breaker() -> None:
    hosts = HostPolicy(HostLimits(failures=1))
    for status in ("tls", "dns", "broken_answer", "unsafe_address", "dropped"):
        hosts.admit("x.com")
        hosts.done("x.com", status)
    assert not hosts.refusal("x.com")


@given(
    st.lists(st.tuples(st.sampled_from(["a.com", "b.com"]), st.sampled_from([None, 200, 429, 500]), st.floats(0, 9)))
)
def test_places_are_never_lost_and_never_exceeded(ends: list[tuple[str, int | None, float]]) -> None:
    clock = Clock()
    hosts = HostPolicy(HostLimits(places=2, down_s=1), clock)
    for host, http_status, later_s in ends:
        begun = sum(hosts.admit(host) == 0 for _ in range(4))
        assert begun <= 2
        for _ in range(begun):
            hosts.done(host, "timeout" if http_status is None else "any", http_status)
        clock.now += later_s
    clock.now += 10_000
    assert hosts.admit("a.com") == 0


def test_further_urls_of_a_host_that_is_down_fail_at_once(web: Web) -> None:
    urls = [web.serve(f"/{i}", reset) for i in range(12)]
    results = fetch_all(*urls, hosts=HostPolicy(HostLimits(failures=4)), concurrency=1)
    assert [result.status for result in results] == ["connect"] * 4 + ["host_down"] * 8
    assert sum(web.asked.values()) == 4
    assert "127.0.0.1 gave no answer" in results[-1].error


def test_a_url_that_was_tried_keeps_what_it_got_when_its_host_goes_down(web: Web) -> None:
    urls = [web.serve(f"/{i}", reset) for i in range(4)]
    results = fetch_all(*urls, hosts=HostPolicy(HostLimits(failures=4)), retries=5)
    assert {result.status for result in results} == {"connect"}
    assert sum(result.attempts for result in results) == sum(web.asked.values()) < 9


def test_transfers_that_hear_nothing_do_not_hold_up_the_others(web: Web) -> None:
    quiet = [web.serve(f"/quiet{i}", silent) for i in range(8)]
    good = [web.serve(f"/{i}", answer(b"x")) for i in range(30)]
    before = time.monotonic()
    results = fetch(
        map(Request, range(38), quiet + good),
        FetchPolicy(**{**vars(POLICY), "concurrency": 4, "stalled_s": 0.1}),
        HostPolicy(),
    )
    assert {next(results).status for _ in good} == {"ok"}
    assert time.monotonic() - before < 2
    results.close()


def test_a_host_that_answers_slowly_does_not_get_more_connections_for_it(web: Web) -> None:
    unanswered: set[socket.socket] = set()
    at_once: list[int] = []

    def slow(connection: socket.socket, served: Web) -> None:
        unanswered.add(connection)
        at_once.append(len(unanswered))
        served.closed.wait(0.4)
        unanswered.discard(connection)  # before the client can know, so that no later request is counted with it
        connection.sendall(answer(b"x"))

    hosts = HostPolicy()
    assert not hosts.is_alive("127.0.0.1")
    fetch_all(web.serve("/quick", answer(b"x")), hosts=hosts)
    assert hosts.is_alive("127.0.0.1")
    urls = [web.serve(f"/{i}", slow) for i in range(12)]
    results = fetch_all(*urls, hosts=hosts, concurrency=3, stalled_s=0.05)
    assert {result.status for result in results} == {"ok"}
    assert max(at_once) <= 3


def test_what_is_not_done_in_time_fails_and_the_rest_goes_on(web: Web) -> None:
    urls = [web.serve("/good", answer(b"x")), web.serve("/quiet", silent), *(web.url(f"/{i}") for i in range(9))]
    before = time.monotonic()
    hosts = HostPolicy()
    results = fetch_all(*urls[:2], hosts=hosts, part_deadline_s=0.3)
    assert [result.status for result in results] == ["ok", "deadline"]
    assert time.monotonic() - before < 2
    assert hosts.domains["127.0.0.1"].running == 0
    late = fetch(
        map(Request, range(11), urls), FetchPolicy(**{**vars(POLICY), "part_deadline_s": 0.0001}), HostPolicy()
    )
    assert {result.status for result in late} == {"deadline"}


def test_a_name_that_does_not_exist_is_told_from_a_resolver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    too_long = f"http://{'a' * 64}.example/"  # fails without anybody being asked
    assert fetch_all(too_long)[0].status == "no_such_host"
    monkeypatch.setattr(names, "look_up", lambda host: (DNS, f"{host}: try again"))
    result = fetch_all(too_long, retries=1)[0]
    assert (result.status, result.attempts) == ("dns", 2)
    assert "try again" in result.error


def test_the_resolvers_words_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> str:
        def getaddrinfo(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return look_up("x.example")[0]

    assert fails(socket.gaierror(socket.EAI_NONAME, "unknown")) == NO_SUCH_HOST
    assert fails(socket.gaierror(socket.EAI_NODATA, "no address")) == NO_SUCH_HOST
    assert fails(socket.gaierror(socket.EAI_AGAIN, "try again")) == DNS
    assert fails(socket.gaierror(socket.EAI_FAIL, "fail")) == DNS
    assert fails(UnicodeError("label too long")) == NO_SUCH_HOST


@pytest.mark.parametrize("status", [DNS, NO_SUCH_HOST])
def test_a_resolver_that_fails_many_names_stops_the_run(monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    monkeypatch.setattr(names, "look_up", lambda host: (status, f"{host}: no"))
    with pytest.raises(RunError, match=r"name resolver does not work: \d+ of the last \d+"):
        fetch_all(*(f"http://{'a' * 64}{i}.example/" for i in range(200)))
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def control(statuses: list[str], monkeypatch: pytest.MonkeyPatch, answers: str = RESOLVED) -> list[str]:
    """Which names are looked up as a control when names are resolved, or not, as told."""
    asked: list[str] = []
    heard = threading.Event()
    monkeypatch.setattr(names, "look_up", lambda host: (asked.append(host), (answers, "no"))[1])
    watched: Names[int] = Names(heard.set)
    for i, status in enumerate(statuses):
        watched.note(f"{i}.example", status)
    heard.wait(0.2)
    assert list(watched.answers()) == []
    watched.close()
    return asked


def test_link_rot_alone_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert control([RESOLVED, *[NO_SUCH_HOST] * 9] * 20, monkeypatch) == []
    assert control([RESOLVED, RESOLVED, DNS] * 60, monkeypatch) == []
    assert control([DNS] * 49, monkeypatch) == []
    assert control([RESOLVED, *[DNS] * 49], monkeypatch) == ["0.example"]
    with pytest.raises(RunError):
        control([RESOLVED, *[DNS] * 49], monkeypatch, DNS)
