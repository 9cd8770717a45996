"""A user's own evaluation: a command that is told where the model lies and writes numbers as JSON."""

import json
import math
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import RunError
from training.evaluate.zeroshot import Scores

_LAST_LINES = 5


@dataclass(frozen=True)
class OwnCommand:
    """The command with {checkpoint} in it, and the file of its results, both relative to the working folder."""

    command: str
    results: Path

    def scores(self, model_folder: Path) -> Scores:
        """Run the command, without a shell, and read what it wrote. Raises RunError where there is no result."""
        words = [word.replace("{checkpoint}", str(model_folder)) for word in shlex.split(self.command)]
        before = self._written()
        try:
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        except OSError as error:
            raise RunError(f"evaluation {self.command!r}: cannot be started: {error}") from error
        if done.returncode:
            said = " / ".join(done.stdout.strip().splitlines()[-_LAST_LINES:]) or "nothing"
            raise RunError(f"evaluation {self.command!r}: ended with code {done.returncode}; it said: {said}")
        if self._written() in (None, before):
            raise RunError(f"evaluation {self.command!r}: ended, but has not written {self.results}")
        return Scores(dict(self._numbers()))

    def _written(self) -> tuple[int, int, int] | None:
        try:
            stat = self.results.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _numbers(self) -> Iterator[tuple[str, float]]:
        try:
            record = json.loads(self.results.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"evaluation results {self.results}: cannot be read as JSON: {error}") from error
        found = dict(_flat(record, "")) if isinstance(record, dict) else {}
        if not found:
            raise RunError(f'evaluation results {self.results}: need an object of numbers, as in {{"accuracy": 0.5}}')
        odd = [name for name, value in found.items() if not math.isfinite(value)]
        if odd:
            raise RunError(f"evaluation results {self.results}: {odd[0]} is {found[odd[0]]}, which is no score")
        yield from found.items()


def _flat(record: dict[str, Any], before: str) -> Iterator[tuple[str, float]]:
    """The numbers of an object; those of an object inside it as `outer.inner`. What is no number is passed over."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{name}", float(value)
