"""Whom a host belongs to: limits hold per registered domain, since `img1.` and `img2.` are mostly one machine."""

import ipaddress
from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList


@lru_cache(100_000)
def registered_domain(host: str) -> str:
    """`b.co.uk` for `a.b.co.uk`, by the public suffix list that the library ships; an address is its own domain."""
    plain = host.rstrip(".")
    if is_address(plain):
        return plain
    return _suffixes().privatesuffix(plain) or plain


@lru_cache(100_000)
def is_address(host: str) -> bool:
    """Whether a host is written as an address, however oddly (`127.1`), and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").rpartition(".")[2].isdigit()
    return True


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
