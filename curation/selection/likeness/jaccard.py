"""Texts as sets of words: the share of words in common among all words of both."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.join import PairBlock
from curation.dedup.texts import jaccard, minhash
from curation.dedup.texts.minhash import Banding
from curation.dedup.texts.word_sets import WordSets, word_sets
from curation.selection.inputs import outgrows_memory
from curation.selection.likeness.likeness import Search, Side
from curation.selection.likeness.spilled_jaccard import spilled_search, spilled_sides
from curation.selection.step import Desk

VERSION = 1
_MOST_MINIMA = 256


@dataclass(frozen=True)
class Jaccard:
    """Texts whose words have at least that Jaccard; `recall` lets MinHash miss some pairs, for long texts."""

    least: Fraction
    recall: float | None = None

    @property
    def identity(self) -> list[Any]:
        """The algorithm; MinHash finds pairs of its own."""
        return ["jaccard", VERSION, self.recall]

    @property
    def threshold(self) -> str:
        """The Jaccard as a fraction."""
        return str(self.least)

    @property
    def words(self) -> str:
        """For reasons."""
        return f"with a word-set Jaccard of {float(self.least):g} or more"

    @property
    def preposition(self) -> str:
        """For reasons."""
        return "to"

    def sides(self, tables: Sequence[pa.Table], desk: Desk, folder: Path) -> list[Side]:
        """The distinct sets of words, numbered over all tables; a text without a word has none."""
        columns = [table["by_0"] for table in tables]
        if self.recall is None and outgrows_memory(sum(column.nbytes for column in columns)):
            return spilled_sides(columns, folder, desk)
        texts = pa.chunked_array([chunk.cast(pa.large_string()) for t in tables for chunk in t["by_0"].chunks])
        sets = word_sets(texts if texts.num_chunks else pa.chunked_array([], pa.large_string()))
        if len(tables) == 1:
            return [_side(sets)]
        cut = tables[0].num_rows
        return [_side(sets.of_texts(slice(0, cut))), _side(sets.of_texts(slice(cut, None)))]

    def search(self, side: Side, other: Side | None, desk: Desk, folder: Path, *, forest: bool = False) -> Search:
        """By the rarest words that two sets share, or by MinHash."""
        if side.spilled:
            return spilled_search(side, other, self.least, desk, forest=forest)
        banding = None if self.recall is None else banding_for(float(self.least), self.recall)
        if banding is not None:
            joined = (
                minhash.self_join(side.held, self.least, banding)
                if other is None
                else minhash.cross_join(side.held, other.held, self.least, banding)
            )
            promised = round(banding.recall(float(self.least)), 4)
            return Search([(joined[1], joined[0])], {"recall": promised, "bands": banding.bands, "rows": banding.rows})
        values, jobs = (
            jaccard.self_join(side.held, self.least)
            if other is None
            else jaccard.cross_join(side.held, other.held, self.least)
        )
        return Search([(jobs, values)], {"recall": 1.0})

    def covers(self, threshold: str) -> bool:
        """MinHash of a lower threshold is another sample."""
        return Fraction(threshold) <= self.least if self.recall is None else Fraction(threshold) == self.least

    def distances(self, block: PairBlock, side: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
        """1 minus the Jaccard; whether it is high enough is decided in whole numbers."""
        left_P, right_P, overlap_P = block
        overlap_P = overlap_P.astype(np.int64)
        union_P = side.held.size_U[left_P].astype(np.int64) + other.held.size_U[right_P] - overlap_P
        is_near_P = overlap_P * self.least.denominator >= union_P * self.least.numerator
        return is_near_P, 1 - overlap_P / union_P


def banding_for(least: float, recall: float) -> Banding:
    """The bands of most rows, which bring fewest false candidates, whose recall at that Jaccard is high enough."""
    for rows in range(16, 0, -1):
        bands = 1 if least == 1 else math.ceil(math.log1p(-recall) / math.log1p(-(least**rows)))
        if bands * rows <= _MOST_MINIMA:
            return Banding(bands, rows)
    return Banding(_MOST_MINIMA, 1)


def _side(sets: WordSets) -> Side:
    named = hashlib.sha256(sets.starts_U1.tobytes() + sets.hash_V[sets.tokens_T].tobytes()).hexdigest()
    return Side(sets.set_N, len(sets), named, sets)
