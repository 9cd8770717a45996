"""Thumbnails of a page of rows, made together as soon as the page is asked for: one by one, each costs a look-up."""

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from curation.analytics.thumbnails import Pictures

SIDE_PX, LARGE_PX = 256, 1280
_TOGETHER, _REMEMBERED = 12, 3000  # keys of one look-up; thumbnails (about 10 kB each) that are kept
_MOST_WAITING = 20  # look-ups; a slider that is dragged asks for many that nobody sees any more

Made = dict[str, bytes | None]


class ThumbnailsAhead:
    """Gives a key's thumbnail, and begins those of a page beforehand. May be used from several threads at once."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._threads = ThreadPoolExecutor(2, "thumbnails")
        self._lock = threading.RLock()
        self._begun: OrderedDict[str, Future[Made]] = OrderedDict()
        self._lately: deque[Future[Made]] = deque()

    def expect(self, keys: Sequence[str]) -> None:
        """Begin thumbnails that will be asked for."""
        with self._lock:
            new = [key for key in dict.fromkeys(keys) if key not in self._begun]
            for start in range(0, len(new), _TOGETHER):
                together = new[start : start + _TOGETHER]
                made = self._threads.submit(self._pictures.thumbnails, together, SIDE_PX)
                self._begun.update(dict.fromkeys(together, made))
                self._lately.append(made)
            while len(self._lately) > _MOST_WAITING:
                oldest = self._lately.popleft()
                if oldest.cancel():
                    self._forget(oldest)
            while len(self._begun) > _REMEMBERED:
                self._begun.popitem(last=False)

    def get(self, key: str) -> bytes | None:
        """A key's thumbnail as JPEG; None where there is no picture that can be read."""
        while True:
            with self._lock:
                self.expect([key])
                made = self._begun[key]
            try:
                return made.result()[key]
            except CancelledError:  # newer pages came before it
                continue
            except Exception:
                self._forget(made)  # the next time it may go well
                raise

    def _forget(self, made: Future[Made]) -> None:
        with self._lock:
            for key in [key for key, other in self._begun.items() if other is made]:
                del self._begun[key]

    def large(self, key: str) -> bytes | None:
        """A key's picture as JPEG that fills a screen."""
        return self._pictures.thumbnails([key], LARGE_PX)[key]

    def close(self) -> None:
        """Stop."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pictures.close()
