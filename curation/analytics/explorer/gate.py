"""Who may ask: only this machine's user, by a token; and the headers that keep the page to itself.

A page of another site could send requests to this address (a forged request, or a name that is rebound to 127.0.0.1),
so the host that is asked for must be this machine's, the token must be there, and the request must not come from
elsewhere. Other programs of this machine can see the port, but not the token.
"""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = {"127.0.0.1", "localhost"}
_OWN = {"same-origin", "none"}  # who asked, as browsers say it: this page, or nobody but the user
_ENTRY = '<!doctype html><title>Pairmill explorer</title><meta http-equiv="refresh" content="0; url=/">'
_METHODS = {"GET", "HEAD", "POST"}
_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Gate:
    """Lets requests with the token through to an app, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._port = port
        self._cookie = f"pairmill-{port}"  # cookies know no ports, and two explorers may run side by side

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, redirect or hand on one request."""
        if scope["type"] != "http":  # the app's own start and end; there are no web sockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal_or_entry(scope)
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _refusal_or_entry(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        name, _, port = headers.get("host", "").partition(":")
        if name not in _HOSTS or (port or "80") != str(self._port) or len(headers.getlist("host")) != 1:
            return _refused("this page is asked for by its address, http://127.0.0.1")
        if scope["method"] not in _METHODS:
            return PlainTextResponse("no such method\n", 405)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(given):
            # From a link in another page, a redirect would count as that page's, and the cookie would not be sent.
            is_own = headers.get("sec-fetch-site", "none") in _OWN
            entry: Response = RedirectResponse("/", 303) if is_own else HTMLResponse(_ENTRY)
            entry.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return entry
        if headers.get("sec-fetch-site", "none") not in _OWN:
            return _refused("another page asked for it")
        cookies = cookie_parser(headers.get("cookie", ""))  # http.cookies trips on those of others
        if not self._is_token(cookies.get(self._cookie, "")):
            return _refused("open the address that `pairmill explore` printed, with its token")
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _refused(why: str) -> Response:
    return PlainTextResponse(f"not allowed: {why}\n", 403)
