"""SIGTERM and Ctrl-C at a place where a training can stop."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Notes the first signal instead of obeying it; `leave` obeys it, once the checkpoint is written.

    A second signal is obeyed at once. Outside the main thread Python lets nobody listen, and signals act as ever.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number
        self.__exit__()

    def leave(self) -> None:
        """Send the noted signal again, now to whoever listened before; nothing if there was none."""
        asked, self.asked = self.asked, None
        if asked is not None:
            signal.raise_signal(asked)
