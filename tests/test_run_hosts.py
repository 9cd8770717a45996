"""One host policy for many workers: limits hold for the run, sites are asked once, no place is lost with a worker."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from misbehaving_web import Web, answer

from curation.fetch.hosts.host_policy import HostLimits
from curation.fetch.hosts.leased_hosts import LeasedHosts
from curation.fetch.hosts.run_hosts import Interest, Reply, Report, RunHosts
from curation.fetch.hosts.site_book import FETCH, SiteAnswers, SiteBook
from curation.fetch.http import addresses
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import Fetched, Request
from curation.fetch.policy import FetchPolicy
from curation.operator import Workplace
from curation.operators.download import Download
from curation.storage.store import Store
from schemas.errors import RunError

LIMITS = HostLimits(places=4)
POLICY = FetchPolicy(timeout_s=5, retries=0, backoff_s=0.01, allow_networks=("127.0.0.1/32",))


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


def run_hosts(clock: Clock | None = None, limits: HostLimits = LIMITS) -> RunHosts:
    clock = clock or Clock()
    return RunHosts(limits, SiteBook(clock=clock), clock)


def places(hosts: RunHosts, worker: str, number: int, wanted: int, running: int = 0) -> int:
    report = Report(worker, number, {"x.com": Interest(wanted, running)}, {}, {})
    return hosts.exchange(report).domains["x.com"].places


def test_a_worker_gets_what_it_wants_within_the_limit() -> None:
    hosts = run_hosts()
    assert [places(hosts, "a", 0, 3), places(hosts, "b", 0, 3)] == [3, 1]


def test_places_go_to_others_when_they_are_given_back_and_not_before() -> None:
    hosts = run_hosts()
    assert places(hosts, "a", 0, 9) == 4
    assert places(hosts, "b", 0, 9) == 0
    assert places(hosts, "a", 1, 9, 4) == 2
    assert places(hosts, "b", 1, 9) == 0  # a has not ended the requests yet
    assert places(hosts, "a", 2, 9, 2) == 2
    assert places(hosts, "b", 2, 9) == 2


def test_who_wants_nothing_any_more_leaves_its_places_at_once() -> None:
    hosts = run_hosts()
    places(hosts, "a", 0, 4)
    hosts.exchange(Report("a", 1, {"x.com": Interest(0, 0)}, {}, {}))
    assert places(hosts, "b", 0, 4) == 4


def test_with_more_workers_than_places_all_get_their_turn() -> None:
    clock = Clock()
    hosts = run_hosts(clock)
    seen: Counter[str] = Counter()
    for number in range(400):
        for worker in "abcdefghij":
            seen[worker] += places(hosts, worker, number, 5)
        clock.now += 0.5
    assert min(seen.values()) > max(seen.values()) / 3


@settings(max_examples=200)
@given(st.data())
def test_the_limit_holds_whatever_workers_do_and_whenever_they_speak(data: st.DataObject) -> None:
    clock = Clock()
    hosts = run_hosts(clock)
    running, lent, number = Counter[str](), Counter[str](), Counter[str]()
    replies: dict[str, int] = {}
    for worker in data.draw(st.lists(st.sampled_from("abc"), max_size=60)):
        act = data.draw(st.sampled_from(["start", "end", "speak", "hear"]))
        if act == "start" and running[worker] < lent[worker]:
            running[worker] += 1
        elif act == "end" and running[worker]:
            running[worker] -= 1
        elif act == "speak" and worker not in replies:
            wanted = running[worker] + data.draw(st.integers(0, 6))
            interest = Interest(wanted, running[worker])
            if not wanted:
                lent[worker] = 0
            reply = hosts.exchange(Report(worker, number[worker], {"x.com": interest}, {}, {}))
            number[worker] += 1
            replies[worker] = reply.domains["x.com"].places if wanted else 0
        elif act == "hear" and worker in replies:
            lent[worker] = replies.pop(worker)
        clock.now += data.draw(st.sampled_from([0.0, 1.0]))
        assert sum(running.values()) <= LIMITS.places


def test_what_one_worker_learns_of_a_host_all_are_told() -> None:
    clock = Clock()
    hosts = run_hosts(clock, HostLimits(failures=3, down_s=10))
    for worker in ("a", "b", "c"):
        hosts.exchange(Report(worker, 0, {"x.com": Interest(1, 0, failures=1)}, {}, {}))
    hosts.exchange(Report("a", 1, {"y.com": Interest(1, 0, heard=True, asked_s=7)}, {}, {}))
    both = {name: Interest(1, 0) for name in ("x.com", "y.com")}
    told = hosts.exchange(Report("d", 0, both, {}, {})).domains
    assert (told["x.com"].down_s, told["y.com"].quiet_s) == (10, 7)
    assert "3 times" in told["x.com"].reason
    hosts.exchange(Report("d", 1, {"x.com": Interest(1, 1, heard=True)}, {}, {}))
    assert hosts.exchange(Report("e", 0, both, {}, {})).domains["x.com"].down_s == 0


def test_a_site_is_asked_by_one_worker_and_its_answers_go_to_all() -> None:
    hosts = run_hosts()
    site = "http://x.com"
    wanted = {site: ("robots", "tdmrep")}
    assert hosts.exchange(Report("a", 0, {}, wanted, {})).sites == {site: FETCH}  # type: ignore[arg-type]
    assert hosts.exchange(Report("b", 0, {}, wanted, {})).sites == {}  # type: ignore[arg-type]
    found = SiteAnswers(site, 1000, "", 404, "", 404)
    hosts.exchange(Report("a", 1, {}, {}, {site: found}))
    assert hosts.exchange(Report("b", 1, {}, wanted, {})).sites == {site: found}  # type: ignore[arg-type]


def test_a_worker_that_falls_silent_loses_its_places() -> None:
    clock = Clock()
    hosts = run_hosts(clock)
    assert places(hosts, "a", 0, 4) == 4
    clock.now += 40
    assert places(hosts, "b", 0, 4) == 4
    reply = hosts.exchange(Report("a", 1, {"x.com": Interest(4, 4)}, {}, {}))
    assert reply.unknown
    assert not reply.domains


def leased(hosts: RunHosts, lock: threading.Lock, delay_s: float = 0.0) -> LeasedHosts:
    def exchange(report: Report) -> Reply:
        time.sleep(delay_s)
        with lock:
            return hosts.exchange(report)

    return LeasedHosts(LIMITS, exchange=exchange)


def fetch_in_threads(urls: list[list[str]], hosts: list[LeasedHosts], policy: FetchPolicy = POLICY) -> list[Fetched]:
    results: list[Fetched] = []

    def work(mine: list[str], host: LeasedHosts) -> None:
        results.extend(fetch(map(Request, range(len(mine)), mine), policy, host))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(urls, hosts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_workers_keep_a_limit_together_and_ask_for_robots_once(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    running = [0, 0]  # now, at most
    counting = threading.Lock()

    def slow(connection: object, _web: Web) -> None:
        with counting:
            running[0] += 1
            running[1] = max(running)
        time.sleep(0.02)
        with counting:
            running[0] -= 1  # before the client can know, so that the next request does not overtake this
        connection.sendall(answer(b"x"))  # type: ignore[attr-defined]

    urls = [[web.serve(f"/{worker}/{i}", slow) for i in range(25)] for worker in range(3)]
    # Networks that the user names are not limited; so this one is made to look like a part of the public web.
    monkeypatch.setattr(addresses, "denied", lambda address: "")
    central, lock = RunHosts(LIMITS, SiteBook()), threading.Lock()
    hosts = [leased(central, lock, 0.01) for _ in range(3)]
    results = fetch_in_threads(urls, hosts, FetchPolicy(**{**vars(POLICY), "allow_networks": (), "ports": (web.port,)}))
    assert Counter(result.status for result in results) == {"ok": 75}
    assert running[1] <= LIMITS.places
    assert set(web.asked_first.values()) == {1}


def test_a_run_whose_host_policy_is_gone_stops(web: Web) -> None:
    def exchange(report: Report) -> Reply:
        raise ConnectionError("gone")

    with pytest.raises(RunError, match="host policy of the run cannot be reached"):
        list(fetch(iter([Request(0, web.url("/"))]), POLICY, LeasedHosts(LIMITS, exchange=exchange)))


def test_no_thread_is_left_behind(web: Web) -> None:
    hosts = leased(RunHosts(LIMITS, SiteBook()), threading.Lock())
    assert next(fetch(iter([Request(0, web.serve("/", answer(b"x")))]), POLICY, hosts)).status == "ok"
    deadline = time.monotonic() + 5
    while any(thread.name == "hosts" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_operator_takes_what_its_workplace_offers(tmp_path: Path) -> None:
    operator, store = Download(per_host=3, requests_per_s=2.0), Store.open(tmp_path)
    told: list[tuple[object, ...]] = []
    alone = operator.open_at(Workplace(store)).hosts
    among_others = operator.open_at(Workplace(store, lambda *what: told.append(what))).hosts
    assert type(alone).__name__ == "HostPolicy"
    assert alone.limits == among_others.limits == HostLimits(3, 2.0)
    assert isinstance(among_others, LeasedHosts)
    among_others.exchange("report")  # type: ignore[misc, arg-type]
    assert told == [(store, HostLimits(3, 2.0), "report")]
