"""Reads a URL once, strictly, and writes it anew in plain ASCII: what libcurl gets has one reading only.

Two parsers that disagree about a URL are how checks are bypassed (`http://good.example\\@127.0.0.1/`). So whatever is
odd in the part that names the host is refused; in the path and query, what must be escaped is escaped, as browsers do.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin

from curation.fetch.outcomes import BAD_URL, UNSAFE_URL

_MOST_CHARS = 8192
_DEFAULT_PORT = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//)?(?P<authority>[^/?#]*)(?P<path>[^#]*)(?:#.*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{0,5}))?")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?\.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEPT_IN_PATH = "%/?:@!$&'()*+,;=-._~[]|"


class UrlError(ValueError):
    """A URL is not fetched: a sentence, and in `status` the class of failure."""

    def __init__(self, message: str, status: str = BAD_URL) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Target:
    """Where a request goes: the URL in plain ASCII without fragment, and its parts."""

    url: str
    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int

    @property
    def site(self) -> str:
        """Scheme, host and port as they stand in the URL: what a robots.txt is about."""
        return "/".join(self.url.split("/", 3)[:3])


def parse_url(url: str) -> Target:
    """The one reading of a URL. Raises UrlError."""
    url = url.strip(" \t\r\n\f")
    found = _URL.fullmatch(url)
    if len(url) > _MOST_CHARS or _CONTROL.search(url) or found is None:
        raise UrlError("the URL is too long, holds control characters, or has no scheme such as https:")
    scheme = found["scheme"].lower()
    if scheme not in _DEFAULT_PORT:
        raise UrlError(f"{scheme}: is not fetched, only http: and https:", UNSAFE_URL)
    if not found["slashes"]:
        raise UrlError("the URL has no // behind its scheme")
    host, port = _host_and_port(found["authority"], _DEFAULT_PORT[scheme])
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port == _DEFAULT_PORT[scheme] else f":{port}"
    try:
        path = quote(found["path"], safe=_KEPT_IN_PATH)
    except UnicodeEncodeError:
        raise UrlError("the URL holds characters that no encoding has") from None
    return Target(f"{scheme}://{shown_host}{shown_port}{'' if path.startswith('/') else '/'}{path}", scheme, host, port)


def redirected(target: Target, location: str) -> Target:
    """Where a Location header leads. Raises UrlError."""
    location = location.strip()
    try:
        return parse_url(location if _SCHEME.match(location) else urljoin(target.url, location))
    except UrlError:
        raise
    except ValueError as error:
        raise UrlError(f"the answer redirects to what is no URL: {error}") from error


@lru_cache(10_000)
def _host_and_port(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise UrlError("the URL holds a user name or password", UNSAFE_URL)
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise UrlError("the URL names no host, or an odd one")
    port = int(found["port"] or default_port)
    if not 1 <= port <= 65535:
        raise UrlError(f"port {port} does not exist")
    return _plain_host(found["host"]), port


def _plain_host(host: str) -> str:
    """The host in lower-case ASCII (IDNA 2003, the standard library's)."""
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        plain = host.lower() if host.isascii() else host.encode("idna").decode().lower()
    except ValueError as error:
        raise UrlError(f"the URL's host cannot be read: {error}") from error
    if not _HOST.fullmatch(plain):
        raise UrlError("the URL names no host, or an odd one")
    return plain
