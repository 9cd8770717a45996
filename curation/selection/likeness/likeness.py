"""How alike two values are: what `dedup` needs of each kind, and pairs that are found once and kept.

N: rows; U, V: distinct values; P: pairs.
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curation.dedup.exchange import pairs_by_files
from curation.dedup.join import Job, PairBlock, Values
from curation.selection.step import Desk
from curation.storage.found_pairs import keep_pairs, recall_pairs
from curation.storage.store import digest


@dataclass(frozen=True)
class Side:
    """The distinct values of one set of rows: `group_N` is each row's value, -1 where it has none that compares.

    Values are numbered by what they are, so that `digest` names them whatever the order of rows.
    """

    group_N: np.ndarray
    groups: int
    digest: str
    held: Any  # the values, as their kind holds them
    facts: Mapping[str, Any] = field(default_factory=dict)
    spilled: bool = False  # whether they are so many that no worker should hold all of them


@dataclass(frozen=True)
class Search:
    """What finds the pairs: jobs over values, in rounds that come one after the other.

    `facts` are known before, such as the recall that is promised.
    """

    rounds: Iterable[tuple[Sequence[Job], Values]]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Likeness(Protocol):
    """One kind of likeness with its threshold."""

    @property
    def identity(self) -> list[Any]:
        """What decides which pairs a search finds, beside the values and the threshold."""

    @property
    def threshold(self) -> str:
        """The threshold as it was written."""

    @property
    def words(self) -> str:
        """How near two values must be, in words: `within 4 bits`."""

    @property
    def preposition(self) -> str:
        """What leads from those words to the other value: `of` or `to`."""

    def sides(self, tables: Sequence[pa.Table], desk: Desk, folder: Path) -> list[Side]:
        """The distinct values of one or two tables with the step's inputs. Raises RunError.

        What memory does not hold may lie in the folder, while there is one.
        """

    def search(self, side: Side, other: Side | None, desk: Desk, folder: Path, *, forest: bool) -> Search:
        """What finds the pairs inside one side (left < right), or between two.

        With `forest`, only as many of the pairs inside a spilled side as connect what all connect.
        """

    def covers(self, threshold: str) -> bool:
        """Whether a search by that threshold has found every pair that this one would."""

    def distances(self, block: PairBlock, side: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
        """Which pairs of a wider search are near enough, as bool_P; and how far apart they are, less is nearer."""


@contextlib.contextmanager
def scratch(desk: Desk) -> Iterator[Path]:
    """A folder for what memory does not hold, which all workers see where there are any; it goes afterwards."""
    with desk.store.temporary_folder() if desk.store is not None else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def pairs_of_sides(
    likeness: Likeness, side: Side, other: Side | None, desk: Desk, folder: Path, *, connected: bool = False
) -> tuple[Iterator[PairBlock], Mapping[str, Any]]:
    """The pairs that are near enough with their distances (less is nearer), and facts of the search.

    They come from the store where the same values were searched before by the same or a wider threshold.

    `connected` says that the caller wants to know what the pairs inside one side connect, and nothing else of them.
    Then, of values that outgrow memory, each job gives a spanning forest of its pairs, and that is what is kept: a
    search of its own, for another order of the rows at the same threshold. A stricter threshold, or another rule, finds
    the pairs anew. All pairs of fewer values are kept.
    """
    sides = side, side if other is None else other
    forest = connected and side.spilled and other is None
    if desk.store is None:
        search = likeness.search(side, other, desk, folder, forest=forest)
        blocks = (block for round_ in search.rounds for block in desk.find(*round_))
        return _near(likeness, blocks, *sides), search.facts
    named = [*likeness.identity, side.digest, None if other is None else other.digest]
    found = recall_pairs(desk.store, digest(named), likeness.covers)
    if found is None and forest:
        named.append("forest")
        found = recall_pairs(desk.store, digest(named), lambda threshold: threshold == likeness.threshold)
    if found is None:
        search = likeness.search(side, other, desk, folder, forest=forest)
        blocks = (block for round_ in search.rounds for block in pairs_by_files(desk.find, *round_, folder))
        found = keep_pairs(desk.store, digest(named), likeness.threshold, blocks, search.facts)
    return _near(likeness, found.blocks(), *sides), found.facts


def _near(likeness: Likeness, blocks: Iterator[PairBlock], side: Side, other: Side) -> Iterator[PairBlock]:
    for block in blocks:
        is_near_P, distance_P = likeness.distances(block, side, other)
        left_P, right_P, _ = block
        yield left_P[is_near_P], right_P[is_near_P], distance_P[is_near_P]
