"""SIGTERM and Ctrl-C at a place where a training can stop."""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

    from training.ranks import Ranks

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

    def agreed(self, ranks: "Ranks", device: "torch.device") -> bool:
        """Whether a signal was noted on any rank; it then counts on all, so that none waits for one that left."""
        shares = ranks.mean([float(self.asked == number) for number in SIGNALS], device)
        noted = [number for number, share in zip(SIGNALS, shares, strict=True) if share]
        self.asked = noted[0] if noted else self.asked
        return bool(noted)

    def leave(self) -> None:
        """Send the noted signal again, now to whoever listened before; nothing if there was none."""
        asked, self.asked = self.asked, None
        if asked is not None:
            self.__exit__()  # where another rank was asked, this one still listens
            signal.raise_signal(asked)
