"""A run on the terminal: a live display where there is one, a line every few seconds where there is not."""

import sys
import time
from typing import TYPE_CHECKING, TextIO

from flows.progress import Tally, View, as_record
from flows.wording import count, drops, duration, progress_line, rate

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table

_LINE_EVERY_S = 5


def display(stream: TextIO | None = None) -> View:
    """The view that suits a stream (default: standard error, so that standard output holds results only)."""
    stream = stream or sys.stderr
    return Terminal(stream) if stream.isatty() else Lines(stream)


class Lines:
    """A plain line whenever something new begins, and every few seconds."""

    def __init__(self, stream: TextIO, every_s: float = _LINE_EVERY_S) -> None:
        self._stream = stream
        self._every_s = every_s
        self._last = 0.0
        self._said = ""

    def show(self, tally: Tally, *, now: bool) -> None:
        """Write a line if it is time and it says something new."""
        moment = time.time()
        if not now and moment - self._last < self._every_s:
            return
        line = progress_line(as_record(tally, moment))
        if line != self._said:
            print(f"{tally.name}: {line}" if tally.name else line, file=self._stream, flush=True)
        self._last, self._said = moment, line

    def close(self) -> None:
        """Nothing is open."""


class Terminal:
    """A display that stays in place: what is decided above, the running stage below."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally = Tally()
        self._live: Live | None = None

    def show(self, tally: Tally, *, now: bool) -> None:
        """Take the newest numbers; the display refreshes itself."""
        self._tally = tally
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._stream), get_renderable=self._draw, refresh_per_second=4, transient=True
            )
            self._live.start()

    def close(self) -> None:
        """Take the display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> "Group":
        from rich.console import Group, RenderableType
        from rich.text import Text

        tally, now = self._tally, time.time()
        parts: list[RenderableType] = [_decided(tally)]
        if tally.activity == "writes shards":
            at, of = tally.shards_written, tally.shards
            parts += [Text(f"{tally.name} writes shards", "bold"), _bar(at, of), Text(f"{at:,} of {of:,}")]
        elif tally.label:
            at, of = tally.rows_done, tally.rows
            numbers = f"{count(at)} of {count(of)} rows"
            if tally.rows_per_s is not None:
                numbers += f"  {rate(tally.rows_per_s)}"
            if (eta_s := tally.eta_s(now)) is not None:
                numbers += f"  {duration(eta_s)} left"
            head = f"{tally.name} stage {tally.stage + 1} of {tally.stages}: {tally.label}"
            parts += [Text(head, "bold"), _bar(at, of), Text(numbers)]
        else:
            parts.append(Text(f"{tally.name} {tally.activity} …", "bold"))
        if tally.dropped:
            parts.append(Text(f"dropped so far: {drops(dict(tally.dropped))}", "dim"))
        return Group(*parts)


def _decided(tally: Tally) -> "Table":
    """The steps whose drops are final."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for label, rows_in, rows_out in list(tally.decided):
        dropped = f"−{count(rows_in - rows_out)}" if rows_in != rows_out else ""
        table.add_row(Text("✓ " + label, "green"), Text(f"{count(rows_out)} rows"), Text(dropped, "dim"))
    return table


def _bar(done: int, total: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid()  # a bar alone does not end its line
    table.add_row(ProgressBar(total=max(total, 1), completed=done, width=60))
    return table
