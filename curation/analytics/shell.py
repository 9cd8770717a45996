"""The interactive shell of `pairmill sql`: lines become statements, answers that do not fit on the screen are paged.

Python's own readline edits the lines. One version is chosen at the start and stays until the end, whatever runs finish
meanwhile.
"""

import contextlib
import io
import os
import readline
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import duckdb

from curation.analytics.limits import Limits
from curation.analytics.query import ask, connect
from curation.analytics.view_columns import VIEWS
from curation.storage.store import Store
from curation.versions import resolve
from schemas.errors import InputError

_HISTORY_LINES = 1000
_END = {"exit", "quit", ".exit", ".quit", "\\q"}
_HELP = """One SELECT at a time; it ends with ; or an empty line. TAB completes, Ctrl-C stops what is written or runs.
  DESCRIBE samples;  lists the columns of a view; what they mean stands in the view `columns`
  .help  this text;  .quit or Ctrl-D  the end"""


class Shell:
    """Answers statements about one version; `page` shows a text that is longer than the screen."""

    def __init__(
        self,
        store_path: Path | str,
        name: str | None,
        with_versions: Mapping[str, str],
        limits: Limits,
        page: Callable[[str], None],
    ) -> None:
        chosen = resolve(Store.existing(store_path), name)
        self.label = chosen.label
        self._store_path = store_path
        self._version = chosen.manifest.name, chosen.manifest.version
        self._with_versions = with_versions
        self._limits = limits
        self._page = page
        self._connections: dict[bool, duckdb.DuckDBPyConnection] = {}
        self.words = _words(self._connection(""))

    def answer(self, text: str) -> str:
        """The answer to one statement as a table, or the sentence that says what is wrong with it."""
        out = io.BytesIO()
        size = shutil.get_terminal_size()
        try:
            with ask(self._connection(text), text, self._limits) as answer:
                answer.write(out, "table", self._limits.shown_rows, size.columns)
        except InputError as error:
            return f"error: {error}\n"
        return out.getvalue().decode()

    def run(self) -> None:
        """Read, answer and show until the user has enough."""
        print(f"{self.label}: {', '.join(VIEWS)}\n{_HELP}")
        with _edited_lines(self.words):
            while (text := _statement()) is not None:
                if text == ".help":
                    print("\n".join([_HELP, *(f"  {view:12} {meaning}" for view, meaning in VIEWS.items())]))
                elif text:
                    self._show(text)

    def _show(self, text: str) -> None:
        try:
            shown = self.answer(text)
        except KeyboardInterrupt:
            shown = "stopped\n"
        if shown.count("\n") >= shutil.get_terminal_size().lines:
            self._page(shown)
        else:
            print(shown, end="")

    def _connection(self, text: str) -> duckdb.DuckDBPyConnection:
        """`downloads` reads a record of every part, so only who asks for it waits."""
        downloads = "downloads" in text.lower()
        if downloads not in self._connections:
            self._connections[downloads] = connect(
                self._store_path, *self._version, self._with_versions, downloads=downloads, limits=self._limits
            )
        return self._connections[downloads]


def completions(words: list[str], begun: str) -> list[str]:
    """The words that go on as what is begun, whatever the case; behind a dot, names only."""
    head, dot, tail = begun.rpartition(".")
    fitting = (word for word in words if word.lower().startswith(tail.lower()) and not (dot and word.isupper()))
    return [head + dot + word for word in fitting]


def _words(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Keywords in capitals; schemas, views and columns in their own spelling."""
    names = """SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved'
               UNION SELECT unnest(['COUNT', 'VALUES', 'FILTER', 'OVER', 'BETWEEN', 'QUALIFY', 'DISTINCT'])
               UNION SELECT unnest([schema_name, table_name, column_name]) FROM duckdb_columns() WHERE NOT internal
               ORDER BY 1"""
    return [word for (word,) in connection.execute(names).fetchall() if word != "main"]


def _statement() -> str | None:
    """The next statement or command; empty where it was dropped, None at the end."""
    lines: list[str] = []
    while True:
        try:
            line = input("    > " if lines else "sql > ").strip()
        except KeyboardInterrupt:
            print()
            return ""
        except EOFError:
            print()
            return None
        if not lines and line.rstrip(";") in _END:
            return None
        lines += [line] if line else []
        if not line or line.endswith(";") or line == ".help":
            return "\n".join(lines)


@contextlib.contextmanager
def _edited_lines(words: list[str]) -> Iterator[None]:
    """Completion by TAB, and a history that outlives the shell where it can be kept."""
    found: list[str] = []

    def complete(begun: str, number: int) -> str | None:
        if number == 0:
            found[:] = completions(words, begun)
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(_HISTORY_LINES)
    path = history_path()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(path)


def history_path() -> Path:
    """Where statements are remembered: in the user's folder of caches."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "pairmill" / "sql_history"
