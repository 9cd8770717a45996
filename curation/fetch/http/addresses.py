"""Which addresses a fetch may connect to. Decided on the address of the socket, for every connection.

Whatever a URL's host looks like (`127.1`, `2130706433`, a name that answers differently the second time), the socket's
address is plain. `ipaddress.is_global` is not enough: in Python 3.11 it says True for NAT64, 6to4, IPv4-compatible and
multicast addresses and for some clouds' metadata services.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from curation.fetch.outcomes import UNSAFE_ADDRESS, UNSAFE_PORT

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WEB_PORTS = (80, 443)
_IPV6_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA has given out; everything else is special

# IANA's special-purpose registries, and what clouds answer on.
_DENIED: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), meaning)
    for network, meaning in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by carriers and clouds",
        "127.0.0.0/8": "this machine",
        "168.63.129.16/32": "a cloud's wire server",
        "169.254.0.0/16": "link-local, with the clouds' metadata",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "for documentation",
        "192.31.196.0/24": "reserved for AS112",
        "192.52.193.0/24": "reserved for AMT",
        "192.88.99.0/24": "6to4 relays",
        "192.168.0.0/16": "private",
        "192.175.48.0/24": "reserved for AS112",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved or broadcast",
        "2001::/23": "reserved for protocols, with Teredo",
        "2001:db8::/32": "for documentation",
        "2002::/16": "6to4, which hides an IPv4 address",
        "2620:4f:8000::/48": "reserved for AS112",
        "3ffe::/16": "6bone",
        "3fff::/20": "for documentation",
    }.items()
)


@dataclass(frozen=True)
class AddressGuard:
    """Says whether a socket may be opened; networks named by the user may be reached, on any port."""

    allowed: tuple[Network, ...] = ()
    ports: tuple[int, ...] = WEB_PORTS  # of all other networks

    def names(self, address: str) -> bool:
        """Whether the user named a network that holds the address; False for what is no address."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self.allowed)

    def refusal(self, address: str, port: int) -> tuple[str, str] | None:
        """Why no connection may be made, as (status, sentence); None where it may."""
        if self.names(address):
            return None
        meaning = denied(address)
        if meaning:
            sentence = f"{address} is not connected to ({meaning}); allow_networks can name its network"
            return UNSAFE_ADDRESS, sentence
        return self.port_refusal(port)

    def early_refusal(self, host: str, port: int) -> tuple[str, str] | None:
        """What can be said without a socket: of a host that is an address, and of ports where no network is named."""
        refusal = None if self.allowed else self.port_refusal(port)
        return refusal or (None if _parse(host) is None else self.refusal(host, port))

    def port_refusal(self, port: int) -> tuple[str, str] | None:
        """Why a port of the public network may not be connected to, as (status, sentence)."""
        if port in self.ports:
            return None
        ports = ", ".join(map(str, self.ports))
        return UNSAFE_PORT, f"port {port} is not connected to (only {ports}); the setting `ports` can name it"


def parse_networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    """Networks such as 127.0.0.0/8 or fd00::/8. Raises ValueError with a sentence."""
    return tuple(ipaddress.ip_network(network) for network in networks)


@lru_cache(10_000)
def denied(address: str) -> str:
    """What an address is that must not be connected to, in words; empty for an ordinary public one."""
    parsed = _parse(address)
    if parsed is None:
        return "no address that can be judged"
    if parsed.version == 6 and parsed not in _IPV6_UNICAST:
        return "an IPv6 address outside the public range"
    for network, meaning in _DENIED:
        if parsed in network:
            return meaning
    return ""


@lru_cache(10_000)
def _parse(address: str) -> Address | None:
    try:
        return ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
