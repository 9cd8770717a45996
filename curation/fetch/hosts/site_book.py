"""What sites say about robots and reserved rights, asked once per site and day, for a whole run and the next ones.

A site is a scheme with a host and a port. Its answers are captured in the store as they came, apart from everything
that is curated: records robots/<day>/<n>.json, each put if absent, whose files hold many sites each.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa

from curation.storage import layout
from curation.storage.store import FileRef, Store
from curation.storage.tables import put_table, read_table

_DAY_S = 24 * 3600.0  # RFC 9309, 2.4: no longer than that from a cache
_PATIENCE_S = 120.0  # for an answer of somebody who was told to fetch it
_MOST_CHARS = 512 * 2**20  # of answers that are remembered
_MOST_WAITING = 20_000  # answers not yet in the store

FETCH: Literal["fetch"] = "fetch"
WAIT: Literal["wait"] = "wait"
Wanted = tuple[Literal["robots", "tdmrep"], ...]


@dataclass(frozen=True)
class SiteAnswers:
    """What a site answered; None for a file that was not asked for, empty for one that the site does not have."""

    site: str
    at: float  # seconds since 1970
    robots: str | None = None
    robots_http_status: int | None = None
    tdmrep: str | None = None
    tdmrep_http_status: int | None = None


Found = SiteAnswers | Literal["fetch", "wait"]
_SCHEMA = pa.schema(
    {
        "site": pa.string(),
        "at": pa.float64(),
        "robots": pa.string(),
        "robots_http_status": pa.int16(),
        "tdmrep": pa.string(),
        "tdmrep_http_status": pa.int16(),
    }
)


@dataclass
class SiteBook:
    """Knows sites' answers, or says who is to fetch them. Belongs to one thread; without a store, nothing is kept."""

    store: Store | None = None
    clock: Callable[[], float] = time.time
    _answers: dict[str, SiteAnswers] = field(default_factory=dict)
    _chars: int = 0
    _fetching: dict[str, tuple[object, float]] = field(default_factory=dict)  # site → who, until when
    _unwritten: list[SiteAnswers] = field(default_factory=list)
    _next_record: dict[str, int] = field(default_factory=dict)  # by day

    def __post_init__(self) -> None:
        self._read_new()

    def ask(self, site: str, wanted: Wanted, who: object = None) -> Found:
        """A site's answers; or FETCH: whoever asks is to fetch and `tell` them; or WAIT: somebody else does."""
        found = self._answers.get(site)
        if found and self.clock() - found.at < _DAY_S and all(getattr(found, name) is not None for name in wanted):
            return found
        fetching, until = self._fetching.get(site, (None, 0.0))
        if fetching != who and self.clock() < until:
            return WAIT
        self._fetching[site] = who, self.clock() + _PATIENCE_S
        return FETCH

    def tell(self, site: str, answers: SiteAnswers | None) -> None:
        """What came of fetching; None: nothing that lasts, so that the next who asks fetches."""
        self._fetching.pop(site, None)
        if answers is not None:
            self._remember(answers)
            self._unwritten.append(answers)
            if len(self._unwritten) >= _MOST_WAITING:
                self.write()

    def write(self) -> None:
        """Put what is new into the store; who was first there with a record has put other sites, so read it too."""
        if self.store is None or not self._unwritten:
            return
        table = pa.Table.from_pylist([asdict(one) for one in sorted(self._unwritten, key=_site)], schema=_SCHEMA)
        record = {"file": put_table(self.store, table).record()}
        day = _day(self.clock())
        while not self.store.put(layout.robots(day, self._next_record.get(day, 0)), record):
            self._read_new()
        self._next_record[day] = self._next_record.get(day, 0) + 1
        self._unwritten.clear()

    def _read_new(self) -> None:
        """Take in the records of today and yesterday that were not read yet."""
        if self.store is None:
            return
        for day in (_day(self.clock() - _DAY_S), _day(self.clock())):
            number = self._next_record.get(day, 0)
            while (record := self.store.get(layout.robots(day, number))) is not None:
                for row in read_table(self.store, FileRef(**record["file"])).to_pylist():
                    self._remember(SiteAnswers(**row))
                number += 1
            self._next_record[day] = number

    def _remember(self, answers: SiteAnswers) -> None:
        known = self._answers.pop(answers.site, None)
        newest = known if known and known.at > answers.at else answers
        self._answers[answers.site] = newest
        self._chars += _chars([newest]) - _chars([known] if known else [])
        while self._chars > _MOST_CHARS:
            self._chars -= _chars([self._answers.pop(next(iter(self._answers)))])


def _day(moment: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)).date().isoformat()


def _site(answers: SiteAnswers) -> str:
    return answers.site


def _chars(answers: Iterable[SiteAnswers]) -> int:
    return sum(len(one.site) + len(one.robots or "") + len(one.tdmrep or "") + 100 for one in answers)
