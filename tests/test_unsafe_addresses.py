"""No way of writing a private or special address reaches it, neither in a URL nor in a redirect nor behind a name."""

import ipaddress
from collections.abc import Iterator

import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_web import Web, redirect

from curation.fetch.hosts.host_policy import HostLimits, HostPolicy
from curation.fetch.http import transfer
from curation.fetch.http.addresses import AddressGuard, denied, parse_networks
from curation.fetch.http.engine import fetch
from curation.fetch.outcomes import PASSING, RETRIED, Fetched, Request
from curation.fetch.policy import FetchPolicy

POLICY = FetchPolicy(timeout_s=5, retries=0, backoff_s=0.01)
WEB = "127.0.0.9"  # where redirects come from; the only address that may be connected to


def words(text: str) -> list[str]:
    return text.split()


IPV4 = words(
    """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.0.0.53
    127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.17.0.1 172.31.255.255
    192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255
    192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255
    """
)
SPELLINGS = words(
    """
    127.1 127.0.1 0x7f.1 0x7f.0.0.1 0x7f000001 0X7F000001 0177.0.0.1 017700000001 2130706433 00000177.0.0.01
    127.0.0.1. 0 0.0 0x0 10.1 0xa.1 012.0.0.1 167772161 192.168.257 0xc0a80101 3232235777 0300.0250.1.1
    172.1048577 0xac100001 169.254.43518 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.0xfea9fe
    0xa9.254.0251.0xfe １２７.0.0.1 ①②⑦.⓪.⓪.① 127。0。0。1 127．0．0．1 ⑯⑨.254.169.254
    """
)
IPV6 = words(
    """
    :: ::1 0:0:0:0:0:0:0:1 ::127.0.0.1 ::7f00:1 ::a9fe:a9fe ::169.254.169.254 ::8.8.8.8 ::ffff:127.0.0.1
    ::ffff:7f00:1 0:0:0:0:0:ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
    ::ffff:0:a9fe:a9fe 64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::8.8.8.8 64:ff9b:1::7f00:1
    64:ff9b:1:ffff::1 100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:80ff:fffe
    2001:0:a9fe:a9fe:0:0:5601:5601 2001:1::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2001:db8:ffff::7f00:1
    2002::1 2002:7f00:1:: 2002:7f00:1::1 2002:a9fe:a9fe:: 2002:a00:1::a00:1 2002:c0a8:101::1 2620:4f:8000::1
    3ffe::1 3fff::1 3fff:fff::1 4000::1 5f00::1 8000::1 fc00::1 fd00::1 fd00:ec2::254 fdff::1 fe80::1
    fe80::7f00:1 febf::1 fec0::1 ff01::1 ff02::1 ff0e::1
    """
)
HOSTS = [*IPV4, *SPELLINGS, *(f"[{address}]" for address in IPV6), "localhost", "a.localhost", "LOCALHOST."]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    server = Web(WEB)
    yield server
    server.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a socket was made for."""
    addresses: list[str] = []
    real = AddressGuard.refusal

    def refusal(guard: AddressGuard, address: str, port: int) -> tuple[str, str] | None:
        found = real(guard, address, port)
        if found is None:
            addresses.append(address)
        return found

    monkeypatch.setattr(AddressGuard, "refusal", refusal)
    return addresses


def fetch_all(urls: list[str], **changes: object) -> list[Fetched]:
    policy = FetchPolicy(**{**vars(POLICY), **changes})
    results = fetch(map(Request, range(len(urls)), urls), policy, HostPolicy(HostLimits(failures=10_000)))
    return sorted(results, key=lambda result: result.row)


def outcomes(results: list[Fetched]) -> dict[str, str]:
    return {
        host: result.status for host, result in zip(HOSTS, results, strict=True) if result.status != "unsafe_address"
    }


def test_there_are_more_than_a_hundred_and_twenty_ways() -> None:
    assert len(HOSTS) == len(set(HOSTS)) > 120


@pytest.mark.parametrize("robots", [True, False])
def test_no_url_reaches_a_special_address(opened: list[str], robots: bool) -> None:
    results = fetch_all([f"http://{host}/latest/meta-data/" for host in HOSTS], robots=robots, opt_out=robots)
    assert outcomes(results) == {}
    assert opened == []
    assert all(" is not connected to (" in result.error for result in results)


def test_no_redirect_reaches_a_special_address(web: Web, opened: list[str]) -> None:
    urls = [web.serve(f"/{i}", redirect(f"http://{host}/secret")) for i, host in enumerate(HOSTS)]
    assert outcomes(fetch_all(urls, allow_networks=(f"{WEB}/32",))) == {}
    assert set(opened) == {WEB}
    assert set(web.asked.values()) == {1}


def test_no_name_reaches_a_special_address(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are resolved as told here; some to several addresses, some to another one every time."""
    addresses = [*IPV4, *(address for address in IPV6 if "." not in address)]
    told = [f"n{i}.example:80:{address}" for i, address in enumerate(f"[{a}]" if ":" in a else a for a in addresses)]
    told += ["many.example:80:10.0.0.1,127.0.0.1,169.254.169.254,[::1]"]
    monkeypatch.setattr(transfer, "_options", with_names(transfer._options, told))
    names = [line.partition(":")[0] for line in told]
    results = fetch_all([f"http://{name}/" for name in names], robots=False)
    assert {result.status for result in results} <= {"unsafe_address", "connect"}  # connect: no IPv6 on this machine
    assert {result.status for result in [*results[: len(IPV4)], results[-1]]} == {"unsafe_address"}
    assert opened == []


def with_names(options: object, told: list[str]) -> object:
    def wrapped(*arguments: object) -> dict[int, object]:
        return {**options(*arguments), pycurl.RESOLVE: told}  # type: ignore[operator]

    return wrapped


@pytest.mark.parametrize(
    "port", [1, 21, 22, 25, 81, 2375, 3128, 4200, 5432, 6379, 8265, 8888, 9200, 11211, 27017, 65535]
)
def test_only_web_ports_are_connected_to(port: int, opened: list[str], web: Web) -> None:
    urls = [f"http://example.com:{port}/", f"https://93.184.216.34:{port}/", f"http://[2606:4700::1]:{port}/"]
    assert {result.status for result in fetch_all(urls)} == {"unsafe_port"}
    hops = [web.serve(f"/{port}", redirect(f"http://93.184.216.34:{port}/"))]
    assert {result.status for result in fetch_all(hops, allow_networks=(f"{WEB}/32",))} == {"unsafe_port"}
    assert set(opened) <= {WEB}


def test_further_ports_can_be_named(opened: list[str]) -> None:
    result = fetch_all(["http://127.0.0.1:8080/", "http://127.0.0.1:8081/", "http://127.0.0.1/"], ports=(8080,))
    assert [one.status for one in result] == ["unsafe_address", "unsafe_port", "unsafe_port"]
    assert opened == []


def test_a_named_network_opens_nothing_else(opened: list[str]) -> None:
    named = {"allow_networks": ("10.0.0.0/8", "fd00::/16")}
    hosts = ["127.0.0.1", "[::1]", "192.168.0.1", "[fd01::1]", "[::ffff:10.0.0.1]", "[64:ff9b::10.0.0.1]"]
    assert {result.status for result in fetch_all([f"http://{h}/" for h in hosts], **named)} == {"unsafe_address"}
    assert opened == []


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_an_address_that_python_calls_private_is_denied(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert denied(str(address))


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_reached_through_an_ipv6_one(address: ipaddress.IPv4Address) -> None:
    inside = int(address)
    embedded = [
        inside,  # compatible
        0xFFFF << 32 | inside,  # mapped
        0xFFFF << 48 | inside,  # translated
        0x64FF9B << 96 | inside,  # NAT64
        0x2002 << 112 | inside << 80,  # 6to4
        0x20010000 << 96 | (inside ^ 0xFFFFFFFF),  # Teredo
    ]
    assert all(denied(str(ipaddress.IPv6Address(number))) for number in embedded)


@given(st.text())
def test_what_is_no_address_is_denied(text: str) -> None:
    guard = AddressGuard(parse_networks(("127.0.0.0/8",)))
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        assert guard.refusal(text, 80) is not None


def test_a_refused_address_may_be_allowed_later_but_is_not_tried_again_at_once() -> None:
    assert {"unsafe_address", "unsafe_port"} <= PASSING - RETRIED
    assert not {"unsafe_url", "bad_url"} & PASSING


def test_names_are_looked_up_beside_the_transfers() -> None:
    asynchronous = 1 << 7  # CURL_VERSION_ASYNCHDNS
    assert pycurl.version_info()[4] & asynchronous
