"""Several ranks of one training on this machine: started together, and stopped together when one of them fails.

A rank that fails leaves a note with its error and the time, because the others fail with it, some of them sooner:
who began is told from the notes. Importing this imports no torch.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from schemas.errors import InputError, PairmillError, RunError

MEETING_FILE, NOTE_FILE = "PAIRMILL_MEETING_FILE", "PAIRMILL_RANK_NOTE"
_LAST_MOMENTS_S = 5.0  # for ranks to fail by themselves once one has; those that hang are killed
_LOOK_EVERY_S = 0.1
_STOPPED = 128 + signal.SIGTERM
_LINES_SHOWN = 15

Result = TypeVar("Result")


def launch(count: int, command: Sequence[str]) -> None:
    """Run a command as `count` ranks and return when all have finished; only the first one's output is shown.

    Raises InputError or RunError with the error of the rank that failed first. Ctrl-C and SIGTERM are handed on to the
    ranks, which save and stop; a second one ends them at once.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [_started(rank, count, command, folder) for rank in range(count)]
        try:
            while (codes := _codes(ranks)) and not any(codes) and None in codes:
                time.sleep(_LOOK_EVERY_S)
            if any(codes):
                _fail(ranks, folder)
        except BaseException as error:
            _stop(ranks, signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
            raise
        finally:
            for rank in ranks:
                rank.kill()


def noted(function: Callable[[], Result]) -> Result:
    """The result of a rank's work; where `launch` started it, what it raises is left as a note instead of shown."""
    path = os.environ.get(NOTE_FILE)
    try:
        return function()
    except Exception as error:
        if path is None:
            raise
        ours = isinstance(error, PairmillError)
        note = {"at": time.time(), "sentence": str(error) if ours else f"{type(error).__name__}: {error}"}
        Path(path).write_text(json.dumps(note), encoding="utf-8")
        raise SystemExit(error.exit_code if isinstance(error, PairmillError) else 1) from error


def _started(rank: int, count: int, command: Sequence[str], folder: Path) -> "subprocess.Popen[bytes]":
    """One rank, in a session of its own: Ctrl-C reaches it through us alone."""
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), MEETING_FILE: str(folder / "meeting"),
        NOTE_FILE: str(folder / f"note-{rank}.json"),
    }  # fmt: skip
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **own}
    if rank == 0:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with open(_said(folder, rank), "wb") as said:
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=said
        )


def _said(folder: Path, rank: int) -> Path:
    return folder / f"said-{rank}.txt"


def _codes(ranks: Sequence["subprocess.Popen[bytes]"]) -> list[int | None]:
    return [rank.poll() for rank in ranks]


def _fail(ranks: Sequence["subprocess.Popen[bytes]"], folder: Path) -> NoReturn:
    """Raise the error of the rank that failed first."""
    end = time.monotonic() + _LAST_MOMENTS_S
    while None in (codes := _codes(ranks)) and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
    if all(code in (_STOPPED, 0, None) for code in codes):
        signal.raise_signal(signal.SIGTERM)  # somebody stopped the ranks themselves; they have saved
    killed = [rank for rank, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        number = signal.Signals(-(codes[killed[0]] or 0))
        hint = "; perhaps the machine had no memory left" if number == signal.SIGKILL else ""
        raise RunError(f"rank {killed[0]} of {len(ranks)} was ended by {number.name}{hint}; the others were stopped")
    rank, sentence = _first_note(folder, codes)
    kind = InputError if codes[rank] == InputError.exit_code else RunError
    raise kind(f"rank {rank} of {len(ranks)}: {sentence}")


def _first_note(folder: Path, codes: Sequence[int | None]) -> tuple[int, str]:
    """The rank that failed first and its error, or what it said last where it left no note."""
    notes: dict[int, Mapping[str, str]] = {}
    for rank in range(len(codes)):
        with suppress(OSError, ValueError):
            notes[rank] = json.loads((folder / f"note-{rank}.json").read_text(encoding="utf-8"))
    if notes:
        rank = min(notes, key=lambda one: notes[one]["at"])
        return rank, notes[rank]["sentence"]
    rank = next(rank for rank, code in enumerate(codes) if code)
    path = _said(folder, rank)
    lines = path.read_text(errors="replace").splitlines()[-_LINES_SHOWN:] if path.exists() else []
    return rank, "\n".join([f"ended with code {codes[rank]}", *lines])


def _stop(ranks: Sequence["subprocess.Popen[bytes]"], number: signal.Signals) -> None:
    """Hand a signal on and wait until all have saved and ended."""
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)
    for rank in ranks:
        rank.wait()
