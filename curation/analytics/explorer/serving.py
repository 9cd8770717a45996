"""Serves the page on this machine until it is stopped."""

import contextlib
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from curation.analytics.explorer.app import Explorer, made_app
from curation.analytics.explorer.gate import Gate
from curation.analytics.explorer.table import load
from curation.analytics.explorer.thumbnails_ahead import ThumbnailsAhead
from curation.analytics.explorer.wishes import Selection
from curation.analytics.limits import Limits
from curation.analytics.thumbnails import Pictures
from curation.storage.store import Store
from curation.versions import names, resolve
from schemas.errors import InputError

HOST = "127.0.0.1"
_DEFAULT_LIMITS = Limits(time_s=60.0)
_LAST_ANSWERS_S = 3


@dataclass(frozen=True)
class Served:
    """A page that is ready: its address with the token, what it shows, and the server, not running yet."""

    address: str
    label: str
    rows: int
    server: uvicorn.Server
    listening: socket.socket

    def run(self, *, opens_browser: bool) -> None:
        """Serve until Ctrl-C or SIGTERM, which uvicorn hands on when the last answers are given."""
        if opens_browser:
            threading.Thread(target=webbrowser.open, args=(self.address,), daemon=True).start()
        self.server.run(sockets=[self.listening])


@contextlib.contextmanager
def served(
    store_path: Path | str,
    name: str | None = None,
    port: int = 0,
    limits: Limits = _DEFAULT_LIMITS,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Served]:
    """Load one version (the newest, or `name@version`, fixed from here on) and make its page ready.

    `port` 0 takes a free one. Raises InputError where there is no such version, the port is taken, or memory is short.
    """
    store = Store.existing(store_path)
    sets = names(store)
    if name is None and len(sets) > 1:
        raise InputError(
            f"store {store.root}: it has the data sets {', '.join(sets)}; say which: pairmill explore NAME"
        )
    chosen = resolve(store, name)
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(_listening(port))
        tell(f"{chosen.label}: loading {chosen.manifest.pool:,} rows")
        table = opened.enter_context(contextlib.closing(load(store, chosen, limits)))
        thumbnails = opened.enter_context(contextlib.closing(ThumbnailsAhead(Pictures(store, chosen))))
        explorer = Explorer(table, thumbnails)
        explorer.select(Selection())  # compiles the loops, so that the first answer is as quick as the others
        token, bound = secrets.token_urlsafe(24), listening.getsockname()[1]
        config = uvicorn.Config(
            Gate(made_app(explorer), token, bound),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
        address = f"http://{HOST}:{bound}/?token={token}"
        yield Served(address, chosen.label, table.rows, uvicorn.Server(config), listening)


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with contextlib.closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"explore: --port {port}: {error}; leave it out, and a free one is taken") from None
        listening.listen()
        yield listening
