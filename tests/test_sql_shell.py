"""`pairmill sql` without a question: a shell on a real terminal; and the same views from Python."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from small_store import add_downloads, add_version, new_store, pair, usual_pairs

from curation.analytics.limits import Limits
from curation.analytics.read_only import open_views
from curation.analytics.shell import Shell, completions
from curation.storage.store import Store
from schemas.errors import InputError

COMMAND = [sys.executable, "-c", "from flows.command_line import main; main()", "sql"]


ENDLESS = "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 8"


def wait_until_busy(process: subprocess.Popen) -> None:
    """Wait until a process computes."""
    seen = psutil.Process(process.pid)
    begin = seen.cpu_times().user
    while seen.cpu_times().user < begin + 0.5:
        time.sleep(0.05)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = new_store(tmp_path)
    add_downloads(store, usual_pairs())
    add_version(store, usual_pairs())
    return store


class Terminal:
    """A process on a terminal of its own: what is typed, and what it has shown so far."""

    def __init__(self, store: Store, folder: Path, *more: str) -> None:
        ours, theirs = pty.openpty()
        env = os.environ | {"XDG_CACHE_HOME": str(folder / "caches"), "TERM": "dumb", "COLUMNS": "100", "LINES": "24"}
        env |= {"PAGER": "sed s/^/paged:/", "PYTHONPATH": "."}
        command = [*COMMAND, "--store", str(store.root), *more]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True,
                                        start_new_session=True, preexec_fn=_own_terminal)  # fmt: skip
        os.close(theirs)
        self._terminal = ours
        self.shown = ""

    def type(self, text: str, until: str) -> str:
        """Type, wait until a pattern shows behind what was there, and return what was shown meanwhile."""
        begin = len(self.shown)
        os.write(self._terminal, text.encode())
        self._wait(lambda: re.search(until, self.shown[begin:]) is not None)
        return self.shown[begin:]

    def ask(self, text: str, until: str) -> str:
        """Type at the prompt: what is typed before it shows may be lost."""
        self._wait(lambda: self.shown.endswith("sql > "))
        return self.type(text, until)

    def end(self) -> int:
        """End the shell as a user does; its exit code."""
        self._wait(lambda: self.shown.endswith("sql > "))
        os.write(self._terminal, b"\x04")
        return self.process.wait(30)

    def _wait(self, shown: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not shown():
            assert time.monotonic() < deadline, self.shown
            if select.select([self._terminal], [], [], 1)[0]:
                self.shown += os.read(self._terminal, 65536).decode(errors="replace")

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


def _own_terminal() -> None:
    """Make standard input the process's controlling terminal, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(store, tmp_path)
    yield opened
    opened.close()


def test_statements_are_completed_answered_paged_stopped_and_remembered(store, terminal, tmp_path):
    assert "demo@" in terminal.type("", r"sql > $")
    assert re.search(r"\b12\b", terminal.ask("SELECT count(*) AS n FROM samp\t;\n", r"1 row\s"))
    assert "8" in terminal.ask("SELECT count(*) + 1 AS n\nFROM curated\n\n", r"1 row\s")
    assert 'Did you mean "samples"' in terminal.ask("SELECT * FROM sampels;\n", r"sql > $")
    assert "only a SELECT is run" in terminal.ask("DROP VIEW samples;\n", r"sql > $")
    assert "paged:" not in terminal.ask("SELECT key FROM samples LIMIT 3;\n", r"3 rows")
    assert terminal.ask("FROM range(50);\n", r"paged:50 rows").count("paged:") > 50
    terminal.ask(f"{ENDLESS};\n", r"\n")
    wait_until_busy(terminal.process)
    terminal.type("\x03", r"stopped\s+sql > $")
    assert "fetch" in terminal.ask("SELECT status, count(*) AS fetches FROM downloads GROUP BY 1;\n", r"2 rows")
    assert terminal.end() == 0
    again = Terminal(store, tmp_path)
    try:
        assert "FROM downloads GROUP BY 1;" in again.ask("\x10\n", r"2 rows")  # Ctrl-P: the line before
        again.ask(".quit\n", r"quit")
        assert again.process.wait(30) == 0
    finally:
        again.close()


def test_a_question_comes_from_standard_input_where_that_is_no_terminal(store):
    command = [*COMMAND, "--store", str(store.root), "--format", "csv"]
    env = os.environ | {"PYTHONPATH": "."}
    done = subprocess.run(command, input=b"SELECT count(*) AS n\nFROM samples", capture_output=True, env=env)
    assert (done.returncode, done.stdout) == (0, b"n\n12\n"), done.stderr
    done = subprocess.run([*command[:-1], "table", "--rows", "3"], input=b"FROM samples", capture_output=True, env=env)
    assert b"3 rows; there are more: --rows shows more of them" in done.stdout
    done = subprocess.run(command, input=b"", capture_output=True, env=env)
    assert done.returncode == 2
    assert b"exactly one SELECT" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_question_that_would_take_for_ever(store, number, code):
    env = os.environ | {"PYTHONPATH": "."}
    process = subprocess.Popen([*COMMAND, ENDLESS, "--store", str(store.root)], stderr=subprocess.PIPE, env=env)
    time.sleep(1)  # its imports keep it busy, too
    wait_until_busy(process)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (code, b"Stopped.\n")


def test_words_are_completed_whatever_the_case_and_behind_a_dot(store):
    words = Shell(store.root, None, {"old": "demo"}, Limits(), print).words
    assert completions(words, "sel") == ["SELECT"]
    assert completions(words, "FATE_r") == ["fate_reason"]
    assert completions(words, "old.sel") == []
    assert completions(words, "old.samp") == ["old.samples"]
    assert completions(words, "s.wi") == ["s.width_px"]
    assert "old" in completions(words, "o")


def test_the_shell_stays_with_the_version_it_began_with(store):
    shell = Shell(store.root, "demo", {}, Limits(), print)
    add_version(store, [*usual_pairs(), pair(40)], plan="plan1")
    assert "12" in shell.answer("SELECT count(*) AS n FROM samples")
    assert "error: sql:" in shell.answer("SELECT nothing FROM samples")
    assert "stopped after 0.2 s" in Shell(store.root, "demo", {}, Limits(time_s=0.2), print).answer(ENDLESS)


def test_python_sees_the_views_and_can_change_nothing(store):
    with open_views(store.root, "demo", {"old": "demo"}) as data:
        assert data.sql("SELECT count(*) FROM samples JOIN old.samples USING (key)").fetchall() == [(12,)]
        asked = data.sql("SELECT caption FROM samples WHERE fate = ? ORDER BY 1", ["dropped"]).to_arrow_table()
        assert asked["caption"].to_pylist() == ["caption 1", "caption 30", "caption 4"]
        file = next(store.path("curated/demo").glob("*/samples-000000.parquet"))
        before = file.read_bytes()
        for text in (
            f"COPY (SELECT 1 AS x) TO '{file}' (USE_TMP_FILE false)",  # which DuckDB's own lock lets through
            f"ATTACH '{file}' AS other",
            "CREATE TABLE t (x INTEGER)",
            "SELECT 1; SELECT 2",
        ):
            with pytest.raises(InputError, match=r"only a SELECT is run|exactly one SELECT"):
                data.sql(text)
        assert file.read_bytes() == before
        with pytest.raises(InputError, match="Candidate bindings"):
            data.sql("SELECT fat FROM samples")


def test_python_goes_on_with_the_version_that_it_opened(store):
    with open_views(store.root) as data:
        add_version(store, [*usual_pairs(), pair(40)], plan="plan1")
        assert data.sql("SELECT count(*) FROM samples").fetchall() == [(12,)]
        assert data.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]
    with open_views(store.root) as data:
        assert data.sql("SELECT count(*) FROM samples").fetchall() == [(13,)]
