"""Thumbnails of a page of rows, made together as soon as the page is asked for: one by one, each costs a look-up."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from curation.analytics.thumbnails import Pictures

SIDE_PX, LARGE_PX = 256, 1280
_TOGETHER, _REMEMBERED = 12, 3000  # keys of one look-up; thumbnails (about 10 kB each) that are kept

Made = dict[str, bytes | None]


class ThumbnailsAhead:
    """Gives a key's thumbnail, and begins those of a page beforehand. May be used from several threads at once."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._threads = ThreadPoolExecutor(2, "thumbnails")
        self._lock = threading.Lock()
        self._begun: OrderedDict[str, Future[Made]] = OrderedDict()

    def expect(self, keys: Sequence[str]) -> None:
        """Begin thumbnails that will be asked for."""
        with self._lock:
            new = [key for key in dict.fromkeys(keys) if key not in self._begun]
            for start in range(0, len(new), _TOGETHER):
                together = new[start : start + _TOGETHER]
                made = self._threads.submit(self._pictures.thumbnails, together, SIDE_PX)
                self._begun.update(dict.fromkeys(together, made))
            while len(self._begun) > _REMEMBERED:
                self._begun.popitem(last=False)

    def get(self, key: str) -> bytes | None:
        """A key's thumbnail as JPEG; None where there is no picture that can be read."""
        self.expect([key])
        with self._lock:
            made = self._begun[key]
        return made.result()[key]

    def large(self, key: str) -> bytes | None:
        """A key's picture as JPEG that fills a screen."""
        return self._pictures.thumbnails([key], LARGE_PX)[key]

    def close(self) -> None:
        """Stop."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pictures.close()
